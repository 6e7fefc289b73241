"""Our side of i-PI's socket protocol: client, driver, conformance check."""

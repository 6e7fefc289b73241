"""What is put into i-PI's own process, beside the integrators: exchange with drivers, output."""

"""The commands of ``dmts-ipi``: composition only. They may import everything, nothing them."""

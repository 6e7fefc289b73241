"""The student: network, kernels, files."""

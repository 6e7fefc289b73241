"""dmts-ipi: molecular dynamics with neural network potentials, several times faster, under i-PI."""

__version__ = "0.1.0"

"""A run folder: its settings, input, structure and outputs."""

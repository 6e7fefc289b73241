"""Sampling with a teacher, and its labels."""

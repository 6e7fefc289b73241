"""Toys for every seam of dmts-ipi."""

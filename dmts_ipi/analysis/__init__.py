"""Observables, their error bars, comparison of runs, and the HTML report."""

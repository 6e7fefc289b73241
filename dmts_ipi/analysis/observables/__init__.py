"""Observables: what ``dmts-ipi analyze`` measures, compares, draws and writes, one object each.

``OBSERVABLES`` is the registry (entry points ``dmts_ipi.observables``); ``Observable`` the contract
and ``FrameAverage`` the short way to a new one. ``docs/extending/observable.md`` has an example.
"""

from .base import Column, FrameAverage, Observable, Sampler
from .registry import OBSERVABLES, observables

__all__ = ["OBSERVABLES", "Column", "FrameAverage", "Observable", "Sampler", "observables"]

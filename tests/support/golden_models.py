"""The models of the golden runs: named without braces, which i-PI's parameters cannot hold."""

from __future__ import annotations

from toy_water import ToyWater


class Teacher(ToyWater):
    """As in the other tests."""


class Student(ToyWater):
    """Its oxygens repel each other less."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(strength=0.15, **kwargs)

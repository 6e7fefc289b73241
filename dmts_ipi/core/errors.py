"""Errors that a user can act on: one line with field, value and remedy; exit status 2."""

from __future__ import annotations

from .exit_codes import ExitCode


class DmtsError(Exception):
    """Base of every error that the command line turns into one line on stderr."""

    status: int = ExitCode.WRONG_INPUT


class InputError(DmtsError):
    """Wrong input. ``field`` names it, ``value`` is what was given, ``remedy`` what to do."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field} = {value}: {remedy}" if value != "" else f"{field}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class MissingPackage(DmtsError):
    """An optional package is missing; says which extra brings it."""

    def __init__(self, extra: str, package: str, cause: object = "") -> None:
        super().__init__(
            f"package '{package}' is missing ({cause}): pip install 'dmts-ipi[{extra}]'"
        )


class ModelFault(DmtsError):
    """A model failed during a run: NaN, a wrong shape, an exception inside the network."""

    status: int = ExitCode.FAULT


class EvaluationFault(ModelFault):
    """A force model failed on a structure that i-PI sent: the process ends with a status of its
    own, as the cause is the physics of the run or the model, not the process."""

    status: int = ExitCode.MODEL_FAILED


class RunFault(DmtsError):
    """A run stopped for a reason that needs a person."""

    status: int = ExitCode.FAULT

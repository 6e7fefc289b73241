"""Makes i-PI know our integrators: two names of its ``inputs.motion.motion`` are replaced.

* ``InputMotionBase.fields["dynamics"]``: the class that reads and stores ``<dynamics>``.
* ``Dynamics``: the class that is made from it, and that the storing code looks for.

An i-PI with a registry of integrators would need neither.
"""

from __future__ import annotations

from dmts_ipi.core.errors import InputError


def install() -> None:
    """Puts our classes in; a second call does nothing.

    Raises:
        InputError: something else has replaced them already.
    """
    from ipi.inputs.motion import motion

    known = motion.InputMotionBase.fields.get("dynamics", (None,))[0]
    from dmts_ipi.ipi.motion.inputs import InputRespaDynamics
    from dmts_ipi.ipi.motion.respa import RespaDynamics

    if known is InputRespaDynamics:
        return
    if known is not motion.InputDynamics or motion.InputMotion.fields is not (
        motion.InputMotionBase.fields
    ):
        raise InputError("i-PI", "<dynamics>", "has already been replaced by another package")
    settings = motion.InputMotionBase.fields["dynamics"][1]
    motion.InputMotionBase.fields["dynamics"] = (InputRespaDynamics, settings)
    motion.Dynamics = RespaDynamics

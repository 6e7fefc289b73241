"""What an error of the student's virial does to the pressure that DMTS samples in NPT.

Forces do not fix a virial: a pair or a volume term that exerts no force in the training frames
leaves the pressure of the student off by a constant A. In multiple time stepping the barostat is
pushed by A in every inner step and pulled back by the teacher's correction at the end of each outer
step of length D. Between two corrections the logarithmic strain e then follows a parabola,
e(t) = (3 V A / W) (t^2 - D t) / 2 with the barostat's mass W = 3 N kT tau^2, whose mean is
-(3 V A / W) D^2 / 12. The restoring pressure acts on the mean, so that at the ends of outer steps,
where the teacher acts and outputs are written, the strain is larger by as much, and the pressure
there is off by

    dP = -A (Omega D)^2 / 12,    Omega^2 = 3 V K / (N kT tau^2),

with the bulk modulus K. It is -896, -3,672 and -14,704 bar at 20, 40 and 80 fs for copper with a
student that is off by 108,300 bar; the formula says -930, -3,700 and -14,900.
"""

from __future__ import annotations

import math

import numpy as np

from .model import ForceModel
from .units import KB_EV_PER_K

BAR_PER_EV_A3 = 1.602176634e6
STRAIN = 5e-3  # of the volume, for the bulk modulus


def virial_pressure_bar(virial_eV: np.ndarray, cell: np.ndarray) -> float:
    """Pressure of a virial (3, 3) in a cell (3, 3) A, without the kinetic part; bar."""
    volume = abs(float(np.linalg.det(cell)))
    return float(np.trace(virial_eV)) / (3 * volume) * BAR_PER_EV_A3


def bulk_modulus_bar(
    model: ForceModel,
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
) -> float:
    """Bulk modulus from the virial at two volumes, atoms moved with the cell; bar.

    Bonds inside molecules are strained as well, so that for molecular systems this is an upper
    bound. NaN where the model has no virial.
    """
    pressures = []
    for sign in (-1.0, 1.0):
        factor = (1 + sign * STRAIN) ** (1 / 3)
        virial = model.compute(numbers, positions * factor, cell * factor, pbc).virial_eV
        if virial is None:
            return math.nan
        pressures.append(virial_pressure_bar(virial, cell * factor))
    return -(pressures[1] - pressures[0]) / (2 * STRAIN)


def pressure_shift_bar(
    excess_bar: float,
    bulk_bar: float,
    volume_A3: float,
    n_atoms: int,
    temperature_K: float,
    correction_fs: float,
    barostat_tau_fs: float,
) -> float:
    """Shift of the sampled pressure (module docstring), bar.

    Args:
        excess_bar: pressure of the fast model minus that of the one which corrects it.
        bulk_bar: bulk modulus.
        volume_A3: of the cell.
        n_atoms: how many.
        temperature_K: temperature.
        correction_fs: time between two corrections, the outer time step of this pair of models.
        barostat_tau_fs: relaxation time of the volume.
    """
    stiffness_eV = max(bulk_bar, 0.0) / BAR_PER_EV_A3 * volume_A3
    ratio = 3 * stiffness_eV / (n_atoms * KB_EV_PER_K * temperature_K)
    return -excess_bar * ratio * (correction_fs / barostat_tau_fs) ** 2 / 12

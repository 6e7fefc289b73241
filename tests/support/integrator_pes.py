"""A PES for i-PI's ``<ffdirect>``: flexible waters on springs, hartree and bohr.

Parameters: ``k`` of O-H, ``bend`` of H-H, ``site`` of O to its place; ``swirl`` adds a force
that has no energy; ``virial``: 0 gives none.
"""

import numpy as np
from ipi.pes.dummy import Dummy_driver

__DRIVER_NAME__ = "waters"
__DRIVER_CLASS__ = "Waters"
OH, HH = 1.81, 2.86


class Waters(Dummy_driver):
    def __init__(self, k=0.5, bend=0.15, site=0.01, swirl=0.0, virial=1, **kwargs):
        self.k, self.bend, self.site = float(k), float(bend), float(site)
        self.swirl, self.virial = float(swirl), bool(virial)
        super().__init__(**kwargs)

    def check_parameters(self):
        pass

    def compute_structure(self, cell, pos):
        x = np.array(pos).reshape(-1, 3, 3)
        f, energy, virial = np.zeros_like(x), 0.0, np.zeros((3, 3))
        for a, b, k, r0 in ((0, 1, self.k, OH), (0, 2, self.k, OH), (1, 2, self.bend, HH)):
            d = x[:, a] - x[:, b]
            r = np.sqrt((d * d).sum(1))
            g = (-k * (r - r0) / r)[:, None] * d
            f[:, a] += g
            f[:, b] -= g
            energy += 0.5 * k * float(((r - r0) ** 2).sum())
            virial += d.T @ g
        # sites move with the cell: whole tenths of it
        d = x[:, 0] - np.round(x[:, 0] @ np.linalg.inv(cell).T * 2) / 2 @ cell.T
        f[:, 0] -= self.site * d
        virial -= self.site * d.T @ d
        energy += 0.5 * self.site * float((d * d).sum())
        if self.swirl:
            f[:, 1] += self.swirl * np.cross(x[:, 1] - x[:, 0], [0.0, 0.0, 1.0])
        return energy, f.reshape(-1, 3), virial * self.virial, ""

"""A PES for i-PI's ``<ffdirect>`` in the run tests: springs to the start, in atomic units.

Parameters: ``k`` (hartree/bohr^2), ``delay_s`` per evaluation, ``fault`` (invalid, kick, hang)
from the evaluation ``at`` on, in one evaluation only where ``once`` names a file that marks it.
(i-PI reads the word nan as a number.) From the evaluation ``hold_at`` on each one takes ``HOLD_S``
while the file ``hold`` is there.
"""

import os
import time

import numpy as np
from ipi.pes.dummy import Dummy_driver

__DRIVER_NAME__ = "springs"
__DRIVER_CLASS__ = "Springs"
HOLD_S = 0.5


class Springs(Dummy_driver):
    def __init__(self, k=0.02, delay_s=0.0, fault="", at=0, once="", hold="", hold_at=0, **kwargs):
        self.once, self.hold, self.hold_at = once, hold, int(hold_at)
        self.k, self.delay_s, self.fault, self.at = float(k), float(delay_s), fault, int(at)
        self.calls, self.origin = 0, None
        super().__init__(**kwargs)

    def check_parameters(self):
        pass

    def compute_structure(self, cell, pos):
        self.calls += 1
        pos = np.array(pos).reshape(-1, 3)
        # fractional sites, so that a restarted process has the same springs
        sites = np.round(pos @ np.linalg.inv(cell).T * 4) / 4 @ cell.T
        d = pos - sites
        forces = -self.k * d - 0.3 * self.k * d**3
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.hold and self.calls >= self.hold_at and os.path.exists(self.hold):
            time.sleep(HOLD_S)
        if self.fault and self.calls >= self.at and not (self.once and os.path.exists(self.once)):
            if self.once:
                open(self.once, "w").close()
            if self.fault == "invalid":
                forces[0, 0] = np.nan
            elif self.fault == "kick":
                forces[0, 0] += 50.0
            elif self.fault == "hang":
                time.sleep(600)
        energy = float(0.5 * self.k * (d**2).sum() + 0.075 * self.k * (d**4).sum())
        return energy, forces, d.T @ forces, ""

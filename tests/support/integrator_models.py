"""PES with known statistics for i-PI's ``<ffdirect>``, atoms independent but for dimers; hartree.

``kind`` springs: to the origin, ``k`` for even atoms, ``k2`` for odd ones, in bohr. ``cosine``: a
lattice of barriers, ``height`` (1 - cos(2 pi x / ``period``)) / 2 along each axis. ``dimers``: 2i
and 2i+1 by a spring ``k`` of length ``r0``. ``volume``: springs to the cell's scaled sites, and
``stiff`` (V - V0)^2 / (2 V0), V0 = ``v0``.
"""

import numpy as np
from ipi.pes.dummy import Dummy_driver

__DRIVER_NAME__ = "models"
__DRIVER_CLASS__ = "Models"


class Models(Dummy_driver):
    def __init__(self, kind="springs", **parameters):
        self.kind = kind
        self.n = {k: float(v) for k, v in parameters.items() if k != "verbosity"}
        super().__init__(verbosity=False)

    def check_parameters(self):
        pass

    def compute_structure(self, cell, pos):
        x = np.array(pos).reshape(-1, 3)
        return getattr(self, self.kind)(x, np.array(cell))

    def springs(self, x, cell):
        k = np.where(np.arange(len(x)) % 2 == 0, self.n["k"], self.n.get("k2", self.n["k"]))
        f = -k[:, None] * x
        return -0.5 * float((f * x).sum()), f, x.T @ f, ""

    def cosine(self, x, cell):
        w = 2 * np.pi / self.n["period"]
        f = -0.5 * self.n["height"] * w * np.sin(w * x)
        return 0.5 * self.n["height"] * float((1 - np.cos(w * x)).sum()), f, x.T @ f, ""

    def dimers(self, x, cell):
        d = x[::2] - x[1::2]
        r = np.sqrt((d * d).sum(1))
        g = (-self.n["k"] * (r - self.n["r0"]) / r)[:, None] * d
        f = np.empty_like(x)
        f[::2], f[1::2] = g, -g
        return 0.5 * self.n["k"] * float(((r - self.n["r0"]) ** 2).sum()), f, d.T @ g, ""

    def volume(self, x, cell):
        # sites on a grid of the cell, in the order of the atoms
        side = round(len(x) ** (1 / 3))
        grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
        d = x - (grid / side) @ cell.T
        f = -self.n["k"] * d
        v, v0 = float(np.linalg.det(cell)), self.n["v0"]
        virial = d.T @ f - np.eye(3) * self.n["stiff"] * (v - v0) / v0 * v
        energy = (
            0.5 * self.n["k"] * float((d * d).sum()) + 0.5 * self.n["stiff"] * (v - v0) ** 2 / v0
        )
        return energy, f, virial, ""

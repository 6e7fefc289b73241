"""Fixed functions of one pair: smooth switches, radial basis, spherical harmonics, repulsion.

All are smooth enough that a force built from them has a continuous second derivative at every
switching point: the cutoff has a zero of fourth order (a force uses the first derivative of the
basis), the inner switch is the quintic step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# ZBL universal screening, Ziegler, Biersack, Littmark 1985: phi(x) = sum c exp(-b x).
ZBL_C = (0.18175, 0.50986, 0.28022, 0.02817)
ZBL_B = (3.19980, 0.94229, 0.40290, 0.20162)
COULOMB_EV_A = 14.399645478425668
BOHR_A = 0.529177210903


def cutoff_and_slope(r2: Tensor, cutoff_A: float) -> tuple[Tensor, Tensor]:
    """(1 - (r/rc)^4)^4 and its derivative with respect to r, divided by r.

    Args:
        r2: squared distances, A^2, any shape.
        cutoff_A: rc.
    """
    y = (r2 / cutoff_A**2).clamp(max=1.0)
    one = 1.0 - y * y
    cube = one * one * one
    return cube * one, cube * y * (-16.0 / cutoff_A**2)


def smooth_step(r: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Quintic step: 0 below ``low``, 1 above ``high``, second derivative continuous."""
    t = ((r - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * t * (10.0 + t * (6.0 * t - 15.0))


def bessel(r: Tensor, r2: Tensor, cutoff_A: float, count: int) -> tuple[Tensor, Tensor]:
    """Bessel functions with cutoff, sin(n pi r / rc) / r * fc(r), and their derivatives in r.

    Args:
        r, r2: distances and their squares, A and A^2, shape (...).

    Returns:
        Values and derivatives, each (..., count); 1/A and 1/A^2 scaled by rc / pi.
    """
    fc, slope = cutoff_and_slope(r2, cutoff_A)
    theta = r * (math.pi / cutoff_A)
    n = torch.arange(1, count + 1, device=r.device, dtype=r.dtype)
    angle = theta.unsqueeze(-1) * n
    scale = cutoff_A / math.pi
    inverse = (1.0 / r).unsqueeze(-1)
    sine = torch.sin(angle) * inverse * scale
    value = sine * fc.unsqueeze(-1)
    derivative = (torch.cos(angle) * n - sine) * inverse * fc.unsqueeze(-1)
    return value, derivative + sine * (slope * r).unsqueeze(-1)


def gaussians(
    r: Tensor, r2: Tensor, cutoff_A: float, centres: Tensor, width_A: float
) -> tuple[Tensor, Tensor]:
    """exp(-(r - c)^2 / (2 w^2)) * fc(r) and derivatives in r, each (..., count)."""
    fc, slope = cutoff_and_slope(r2, cutoff_A)
    d = (r.unsqueeze(-1) - centres) * (1.0 / width_A)
    g = torch.exp(-0.5 * d * d)
    value = g * fc.unsqueeze(-1)
    return value, g * (slope * r).unsqueeze(-1) - value * d * (1.0 / width_A)


def harmonics(u: Tensor) -> Tensor:
    """Real spherical harmonics l = 0, 1, 2 of unit vectors (..., 3): (..., 9).

    Normalised so that the squares of each l sum to one. Order: 1; x, y, z; xy, yz, z2, xz, x2-y2.
    """
    x, y, z = u.unbind(-1)
    root3 = math.sqrt(3.0)
    return torch.stack(
        [
            torch.ones_like(x),
            x,
            y,
            z,
            root3 * x * y,
            root3 * y * z,
            z * z - 0.5 * (x * x + y * y),
            root3 * x * z,
            0.5 * root3 * (x * x - y * y),
        ],
        dim=-1,
    )


def tensor_times_vector(t: Tensor, u: Tensor) -> Tensor:
    """M u, where u.M.u = sum_m t_m Y_2m(u): t (..., 5), u (..., 3) -> (..., 3)."""
    a, b, c, d, e = t.unbind(-1)
    x, y, z = u.unbind(-1)
    h = 0.5 * math.sqrt(3.0)
    return torch.stack(
        [
            (h * e - 0.5 * c) * x + h * a * y + h * d * z,
            h * a * x - (h * e + 0.5 * c) * y + h * b * z,
            h * d * x + h * b * y + c * z,
        ],
        dim=-1,
    )


def vectors_to_tensor(p: Tensor, q: Tensor) -> Tensor:
    """The l = 2 part of two vectors, in the order of ``harmonics``: (..., 3) -> (..., 5)."""
    px, py, pz = p.unbind(-1)
    qx, qy, qz = q.unbind(-1)
    h = 0.5 * math.sqrt(3.0)
    return torch.stack(
        [
            h * (px * qy + py * qx),
            h * (py * qz + pz * qy),
            pz * qz - 0.5 * (px * qx + py * qy),
            h * (px * qz + pz * qx),
            h * (px * qx - py * qy),
        ],
        dim=-1,
    )


def zbl_force(r: Tensor, zz: Tensor, length_A: Tensor) -> Tensor:
    """-dE/dr of the ZBL repulsion, eV/A, positive.

    Args:
        r: distances, A.
        zz: product of the nuclear charges.
        length_A: screening length 0.8854 a0 / (Zi^0.23 + Zj^0.23).
    """
    x = r / length_A
    phi = torch.zeros_like(r)
    slope = torch.zeros_like(r)
    for c, b in zip(ZBL_C, ZBL_B, strict=True):
        term = c * torch.exp(-b * x)
        phi = phi + term
        slope = slope + b * term
    return COULOMB_EV_A * zz / r * (phi / r + slope / length_A)


def zbl_energy(r: Tensor, zz: Tensor, length_A: Tensor) -> Tensor:
    """ZBL repulsion, eV; arguments as of ``zbl_force``."""
    phi = torch.zeros_like(r)
    for c, b in zip(ZBL_C, ZBL_B, strict=True):
        phi = phi + c * torch.exp(-b * r / length_A)
    return COULOMB_EV_A * zz / r * phi


def zbl_length(za: float, zb: float) -> float:
    """Screening length of ZBL, Angstrom."""
    return 0.88534 * BOHR_A / (za**0.23 + zb**0.23)

"""The student with element channels once more, in NumPy: one atom and one pair at a time.

Written from the equations of ``docs/student.md``, for clusters (no cell). Slow.
"""

from __future__ import annotations

import cmath
import math

import numpy as np

from dmts_ipi.students.density.network import Student

ROOT3 = math.sqrt(3.0)


def silu(z: np.ndarray) -> np.ndarray:
    return z / (1 + np.exp(-z))


def bounded(z: np.ndarray) -> np.ndarray:
    return z / np.sqrt(1 + (z / 12.0) ** 2)


def normalised(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2) + 0.01)


def cutoff(r: float, rc: float) -> tuple[float, float]:
    """(1 - (r/rc)^4)^4 and its slope."""
    if r >= rc:
        return 0.0, 0.0
    one = 1 - (r / rc) ** 4
    return one**4, -16 * one**3 * r**3 / rc**4


def bessel(r: float, rc: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """sin(n pi r / rc) / r times the cutoff, in units of pi / rc, and its slope."""
    k = np.arange(1, count + 1) * math.pi / rc
    f, df = cutoff(r, rc)
    value = np.sin(k * r) / r
    slope = k * np.cos(k * r) / r - np.sin(k * r) / r**2
    return value * f * rc / math.pi, (slope * f + value * df) * rc / math.pi


def matrix_of(t: np.ndarray) -> np.ndarray:
    """The traceless symmetric matrix M with u.M.u = sum t_m Y_2m(u)."""
    a, b, c, d, e = t
    h = 0.5 * ROOT3
    return np.array(
        [[h * e - c / 2, h * a, h * d], [h * a, -h * e - c / 2, h * b], [h * d, h * b, c]]
    )


def components_of(m: np.ndarray) -> np.ndarray:
    """The five components of a matrix: the inverse of ``matrix_of`` up to its trace."""
    m = 0.5 * (m + m.T)
    m = m - np.trace(m) / 3 * np.eye(3)
    two = 2 / ROOT3
    return np.array(
        [two * m[0, 1], two * m[1, 2], m[2, 2], two * m[0, 2], (m[0, 0] - m[1, 1]) / ROOT3]
    )


def l2(u: np.ndarray) -> np.ndarray:
    """Y_2m(u): matrix_of(l2(p)) is 3/2 (p p - |p|^2/3)."""
    return components_of(1.5 * np.outer(u, u))


def step(r: float, low: float, high: float) -> float:
    t = min(max((r - low) / (high - low), 0.0), 1.0)
    return t**3 * (10 - 15 * t + 6 * t * t)


def zbl_force(r: float, z1: int, z2: int, length: float) -> float:
    """-dE/dr of the universal screened repulsion, by a complex step of its energy."""
    assert abs(length - 0.88534 * 0.529177210903 / (z1**0.23 + z2**0.23)) < 1e-7
    d = complex(r, 1e-30)
    c, b = (0.18175, 0.50986, 0.28022, 0.02817), (3.1998, 0.94229, 0.4029, 0.20162)
    phi = sum(p * cmath.exp(-q * d / length) for p, q in zip(c, b, strict=True))
    return -(14.399645478425668 * z1 * z2 / d * phi).imag / 1e-30


class NumpyStudent:
    """``forces(numbers, x)`` of a cluster."""

    def __init__(self, student: Student) -> None:
        self.a, self.elements = student.architecture, student.elements
        tensors = {**student.state_dict(), "centres": student.centres}
        self.w = {k: v.detach().cpu().double().numpy() for k, v in tensors.items()}

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        bias = self.w.get(f"{name}.bias")
        y = x @ self.w[f"{name}.weight"].T
        return y if bias is None else y + bias

    def radial(self, r: float) -> tuple[np.ndarray, np.ndarray]:
        a = self.a
        value, slope = bessel(r, a.cutoff_A, a.bessel)
        f, df = cutoff(r, a.cutoff_A)
        d = (r - self.w["centres"]) / a.gaussian_width_A
        g = np.exp(-d * d / 2)
        return (
            np.concatenate([value, g * f]),
            np.concatenate([slope, g * df - g * f * d / a.gaussian_width_A]),
        )

    def invariants(self, name: str, a1: np.ndarray, a2: np.ndarray) -> np.ndarray:
        k = self.a.triple_invariants
        p, q = np.split(self.linear(f"{name}.mix1", a1), 2, axis=-1)  # (3, count)
        s, t = np.split(self.linear(f"{name}.mix2", a2), 2, axis=-1)  # (5, count)
        triples = [components_of(1.5 * np.outer(p[:, c], q[:, c])) @ s[:, c] for c in range(k)]
        z = np.concatenate([(p * q).sum(0), (s * t).sum(0), triples])
        return bounded((z - self.w[f"{name}.mean"]) * self.w[f"{name}.scale"])

    def two_layers(self, name: str, seen: np.ndarray, x: np.ndarray | float) -> np.ndarray:
        x = x + silu(self.linear(f"{name[0]}", seen))
        return normalised(x + silu(self.linear(f"{name[1]}", normalised(x))))

    def forces(self, numbers: np.ndarray, x: np.ndarray) -> np.ndarray:
        a, w, n = self.a, self.w, len(x)
        z = [self.elements.index(int(k)) for k in numbers]
        d = x[None] - x[:, None]  # [i, j] from i to j
        r = np.linalg.norm(d, axis=-1)
        u = d / np.where(r, r, 1)[..., None]
        y = np.array(
            [[np.concatenate([[1.0], u[i, j], l2(u[i, j])]) for j in range(n)] for i in range(n)]
        )
        near_by = [[j for j in range(n) if j != i and r[i, j] < a.cutoff_A] for i in range(n)]
        mixed, hidden, message = [], [], []
        for i in range(n):
            net = f"atoms.{z[i]}"
            mix = w[f"{net}.mixing"]
            blocks = np.zeros((len(self.elements), 9, a.radial))
            for j in near_by[i]:
                blocks[z[j]] += np.outer(y[i, j], self.radial(r[i, j])[0])
            by_channel = np.einsum("sln,sk->lkn", blocks, mix).reshape(9, -1)
            mixed.append(by_channel)
            a0 = bounded((by_channel[0] - w[f"{net}.mean0"]) * w[f"{net}.scale0"])
            a1, a2 = by_channel[1:4] * w[f"{net}.scale1"], by_channel[4:] * w[f"{net}.scale2"]
            seen = np.concatenate([a0, self.invariants(f"{net}.invariants1", a1, a2)])
            hidden.append(self.two_layers((f"{net}.lift1", f"{net}.dense1"), seen, 0.0))
        q = [self.linear(f"atoms.{z[i]}.send", hidden[i]) for i in range(n)]
        rho = w["rho.weight"]
        for i in range(n):
            b = np.zeros((9, a.messages))
            for j in near_by[i]:
                b += np.outer(y[i, j], (rho @ self.radial(r[i, j])[0]) * q[j])
            message.append(b)
        force = np.zeros((n, 3))
        near_p, near_v, near_t, far = [], [], [], []
        for i in range(n):
            net = f"atoms.{z[i]}"
            s0, s1, s2 = w[f"{net}.message_scale"]
            a1 = np.hstack([mixed[i][1:4] * w[f"{net}.scale1"], message[i][1:4] * s1])
            a2 = np.hstack([mixed[i][4:] * w[f"{net}.scale2"], message[i][4:] * s2])
            seen = np.concatenate(
                [
                    hidden[i],
                    bounded(message[i][0] * s0),
                    self.invariants(f"{net}.invariants2", a1, a2),
                ]
            )
            h = self.two_layers((f"{net}.lift2", f"{net}.dense2"), seen, hidden[i])
            small = h * a.head_scale
            gates = self.linear(f"{net}.gates", small)
            c, t = a.head_channels, a.triple_invariants
            v, tensor = self.linear(f"{net}.mix1", a1), self.linear(f"{net}.mix2", a2)
            bent = np.array([matrix_of(tensor[:, k]) @ v[:, k] for k in range(t)]).T
            square = np.array([l2(v[:, k]) for k in range(t)]).T
            out1 = np.hstack([v * gates[:c], bent * gates[2 * c : 2 * c + t]])
            out2 = np.hstack([tensor * gates[c : 2 * c], square * gates[2 * c + t :]])
            g = np.vstack(
                [
                    self.linear(f"{net}.g0", small),
                    self.linear(f"{net}.out1", out1),
                    self.linear(f"{net}.out2", out2),
                ]
            )
            fixed = g[:, : -a.messages].reshape(9, -1, a.radial)
            by_element = np.einsum("lkn,sk->sln", fixed, w[f"{net}.mixing"])
            by_element[:, 0] += w["base"][z[i]]
            for j in near_by[i]:
                value, slope = self.radial(r[i, j])
                c_lm = by_element[z[j]] @ value + g[:, -a.messages :] @ ((rho @ value) * q[j])
                c_r = by_element[z[j]] @ slope + g[:, -a.messages :] @ ((rho @ slope) * q[j])
                unit, m = u[i, j], matrix_of(c_lm[4:])
                grad = unit * (c_r @ y[i, j])
                grad = grad + (c_lm[1:4] - unit * (c_lm[1:4] @ unit)) / r[i, j]
                grad = grad + 2 * (m @ unit - unit * (unit @ m @ unit)) / r[i, j]
                f = grad * step(r[i, j], *w["inner"][z[i], z[j]])
                force[i] += f
                force[j] -= f
            near_gates = self.linear(f"{net}.near_gates", small)
            k = a.near_channels
            near_p.append(self.linear(f"{net}.near", h))
            near_v.append(self.linear(f"{net}.near_mix1", a1) * (1 + near_gates[:k]))
            near_t.append(self.linear(f"{net}.near_mix2", a2) * (1 + near_gates[k:]))
            far.append(self.linear(f"{net}.far", small))
        s = len(self.elements)
        kinds = {pair: k for k, pair in enumerate((p, q) for p in range(s) for q in range(p, s))}
        for i in range(n):
            for j in range(i + 1, n):
                rij, unit, zi, zj = r[i, j], u[i, j], z[i], z[j]
                kind = kinds[min(zi, zj), max(zi, zj)]
                learned = step(rij, *w["inner"][zi, zj])
                f = np.zeros(3)
                if rij < a.near_cutoff_A:
                    ends = int(numbers[i]), int(numbers[j])
                    f -= unit * zbl_force(rij, *ends, w["lengths"][zi, zj]) * (1 - learned)
                    radial = bessel(rij, a.near_cutoff_A, a.near_bessel)[0]
                    v, terms = w["pair_elements.near_factor"], w["pair_elements.near_terms"][kind]
                    p = v[zj] * near_p[i] + v[zi] * near_p[j] + terms[0] + radial @ terms[1:]
                    ai, aj = near_v[i].T @ unit, -near_v[j].T @ unit
                    qi, qj = near_t[i].T @ y[i, j][4:], near_t[j].T @ y[i, j][4:]
                    dots = (near_v[i] * near_v[j]).sum(0), (near_t[i] * near_t[j]).sum(0)
                    seen = np.concatenate([ai + aj, ai * aj, dots[0], qi + qj, qi * qj, dots[1]])
                    h = p + self.linear("pair.radial", radial)
                    h = silu(h + self.linear("pair.lift", bounded(seen)))
                    h = h + silu(self.linear("pair.dense", h))
                    out = self.linear("pair.out", h)
                    k = a.near_channels
                    vector = (near_v[i] - near_v[j]) @ out[1 : 1 + k]
                    m = matrix_of((near_t[i] + near_t[j]) @ out[1 + k :])
                    fade = learned * cutoff(rij, a.near_cutoff_A)[0]
                    f += (unit * out[0] + vector + m @ unit) * fade
                if rij < a.far_cutoff_A:
                    v = w["pair_elements.far_factor"]
                    both = v[zj] * far[i] + v[zi] * far[j] + w["pair_elements.far_terms"][kind]
                    both = both + 2 * w["base_far"][zi, zj]
                    f += unit * (bessel(rij, a.far_cutoff_A, a.far_bessel)[0] @ both) * learned
                force[i] += f
                force[j] -= f
        return force

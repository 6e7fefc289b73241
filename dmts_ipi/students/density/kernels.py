"""The student's C sources, compiled for one architecture."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch

from dmts_ipi.core.compiled import NotCompiled, library

from .nets import FEATURE_BOUND, NORM_FLOOR, AtomNet
from .network import Student

HERE = Path(__file__).parent
UNITS = [HERE / name for name in ("student_pairs.c", "student_atoms.c", "student_list.c")]
HEADER = HERE / "student_sizes.h"
LANES = 16  # as in the header
# -ffast-math when compiling lets exp and sin be vectorised; when linking it would make the whole
# process flush denormals, so it is left out there.
COMPILE = ("-std=gnu11", "-O3", "-ffast-math", "-fPIC", "-c")
FUNCTIONS: dict[str, tuple[int, int]] = {  # pointers and integers that each one takes
    "geometry": (1, 2),
    "pair_forces": (5, 3),
    "sum_forces": (2, 2),
    "first_stage": (5, 2),
    "second_stage": (9, 2),
    "virial": (2, 0),
    "list_pairs": (1, 0),
}
COUNTS = ("parameter_count", "atom_parameter_count", "system_size", "record_size", "list_size")


def sizes_of(student: Student, dtype: torch.dtype) -> dict[str, str]:
    """The constants that the sources are compiled with.

    Raises:
        NotCompiled: the cutoffs are not nested, which the order of its pairs needs.
    """
    a = student.architecture
    if a.near_cutoff_A > a.cutoff_A or (a.far_bessel and a.cutoff_A > a.far_cutoff_A):
        raise NotCompiled("its cutoffs are not nested")
    suffix = "" if dtype == torch.float64 else "f"
    return {
        "REAL": "double" if dtype == torch.float64 else "float",
        **{f"REAL_{name.upper()}": f"{name}{suffix}" for name in ("exp", "sin", "cos", "sqrt")},
        "FEATURE_BOUND": repr(FEATURE_BOUND),
        "SPECIES": str(len(student.elements)),
        "MIXED": str(a.mixed(len(student.elements))),
        "BESSEL": str(a.bessel),
        "GAUSSIANS": str(a.gaussians),
        "MESSAGES": str(a.messages),
        "NEAR_HIDDEN": str(a.near_hidden),
        "NEAR_CHANNELS": str(a.near_channels),
        "NEAR_BESSEL": str(a.near_bessel),
        "FAR_BESSEL": str(a.far_bessel),
        "INVARIANTS": str(a.invariants),
        "TRIPLES": str(a.triple_invariants),
        "HIDDEN": str(a.hidden),
        "HEAD_CHANNELS": str(a.head_channels),
        "NORMALISE": str(int(a.normalise)),
        "HEAD_SCALE": repr(a.head_scale),
        "NORM_FLOOR": repr(NORM_FLOOR),
    }


def _padded(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (inputs, outputs), or a bias, with outputs padded to a multiple of LANES."""
    return torch.nn.functional.pad(matrix.detach().cpu(), (0, -matrix.shape[-1] % LANES))


def parameters_of(student: Student) -> torch.Tensor:
    """Weights and constants of the sums over pairs, flat, in the order of student_sizes.h."""
    a, s = student.architecture, student
    lengths_A = [a.cutoff_A, a.near_cutoff_A, a.far_cutoff_A, a.gaussian_width_A]
    parts = [
        torch.tensor(lengths_A, dtype=torch.float64),
        s.centres,
        s.inner,
        s.charges,
        s.lengths,
        _far_base(student),
    ]
    if a.messages:
        parts.append(s.rho.weight.T)
    if a.near_hidden:
        pair = s.pair
        lift = pair.lift.weight.T
        first = lift if s.mixes else torch.cat([pair.radial.weight.T, lift])
        parts += [_padded(first), _padded(pair.dense.weight.T), _padded(pair.dense.bias)]
        parts += [_padded(pair.out.weight.T), _padded(pair.out.bias)]
    else:  # the C side keeps places for what a width of zero leaves
        parts.append(_padded(torch.zeros(1 + 2 * a.near_channels)))
    if s.mixes:
        parts += _element_tables(student)
    dtype = next(s.parameters()).dtype
    return torch.cat([p.detach().to(device="cpu", dtype=dtype).reshape(-1) for p in parts])


def _far_base(student: Student) -> torch.Tensor:
    """(s, s, far_bessel): half of what a far pair has by its elements alone."""
    if not (student.mixes and student.architecture.far_bessel):
        return student.base_far
    elements = student.pair_elements
    return student.base_far + 0.5 * elements.far_terms[elements.kind]


def _element_tables(student: Student) -> list[torch.Tensor]:
    """What a student with channels has by elements, after what every student has."""
    a, elements = student.architecture, student.pair_elements
    parts = [torch.stack([net.get_parameter("mixing") for net in student.atoms]), student.base]
    if a.near_hidden:
        terms = elements.near_terms.clone()
        terms[:, 1:] += student.pair.radial.weight.T
        parts += [_padded(elements.near_factor), _padded(terms[elements.kind])]
    if a.far_bessel:
        parts.append(elements.far_factor)
    return parts


def atom_parameters_of(student: Student) -> torch.Tensor:
    """Weights of the atoms' networks, species after species, in the order of student_atoms.c."""
    a, s = student.architecture, len(student.elements)
    base = student.base.reshape(s, -1)
    parts: list[torch.Tensor] = []

    def matrix(layer: Any, inputs: int, outputs: int, bias: bool) -> None:
        there = layer is not None and outputs
        parts.append(_padded(layer.weight.T if there else torch.zeros(inputs, outputs)))
        if bias:
            parts.append(_padded(layer.bias if there else torch.zeros(outputs)))

    def invariants(module: Any, inputs: int) -> None:
        size = 2 * a.invariants + a.triple_invariants
        matrix(module and module.mix1, inputs, 2 * a.invariants, False)
        matrix(module and module.mix2, inputs, 2 * a.invariants, False)
        unused = torch.ones(size, dtype=base.dtype)
        parts.extend([module.mean, module.scale] if module else [unused, unused])

    f, m, h, c, t = (
        a.radial * a.blocks(s), a.messages, a.hidden, a.head_channels, a.triple_invariants
    )  # fmt: skip
    partners = 1 if student.mixes else s
    # With channels the base is added by element, where forces along edges are made.
    base = base.new_zeros(s, f) if student.mixes else base
    size = 2 * a.invariants + t
    for k, module in enumerate(student.atoms):
        assert isinstance(module, AtomNet)
        get = dict(module.named_children()).get
        near, far = a.near_hidden, a.far_bessel
        parts += [module.mean0, module.scale0, module.scale1, module.scale2, module.message_scale]
        parts.append(torch.nn.functional.pad(base[k], (0, m)))
        invariants(module.invariants1, f)
        matrix(module.lift1, f + size, h, True)
        matrix(module.dense1, h, h, True)
        matrix(get("send"), h, m, True)
        invariants(get("invariants2"), f + m)
        matrix(get("lift2"), h + m + size, h, True)
        matrix(get("dense2"), h, h, True)
        matrix(module.gates, h, 2 * c + 2 * t, True)
        matrix(module.mix1, f + m, c, False)
        matrix(module.mix2, f + m, c, False)
        matrix(module.g0, h, f + m, True)
        matrix(module.out1, c + t, f + m, False)
        matrix(module.out2, c + t, f + m, False)
        matrix(get("near"), h, near * partners, True)
        matrix(get("near_mix1"), f + m, a.near_channels, False)
        matrix(get("near_mix2"), f + m, a.near_channels, False)
        matrix(get("near_gates"), h, 2 * a.near_channels, True)
        matrix(get("far"), h, far * partners, True)
    return torch.cat([p.detach().cpu().to(base.dtype).reshape(-1) for p in parts])


def flags_of(sizes: dict[str, str]) -> list[str]:
    """Flags of the compiler; ``prebuilt.json`` has those of the libraries in a wheel."""
    return [*COMPILE, *(f"-D{k}={v}" for k, v in sizes.items())]


def build(sizes: dict[str, str]) -> ctypes.CDLL:
    """The library for some sizes.

    Raises:
        NotCompiled: see ``compiled.library``.
    """
    loaded = library("student", UNITS, flags_of(sizes), [HEADER])
    for name, (pointers, integers) in FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes = [ctypes.c_void_p] * pointers
        function.argtypes += [ctypes.c_int] * (integers - 2) + [ctypes.c_int64] * min(integers, 2)
        function.restype = None
    for name in COUNTS:
        getattr(loaded, name).restype = ctypes.c_int64
    return loaded

"""Units inside dmts-ipi: eV, Angstrom, fs, amu, K. Atomic units exist only in ``dmts_ipi.ipi``.

Constants come from ase.units (CODATA 2014), not typed by hand.
"""

from ase import units as _ase

KB_EV_PER_K = float(_ase.kB)
# One amu A^2/fs^2 in eV: kinetic energy is 0.5 * m_amu * v^2 * this.
AMU_A2_PER_FS2_IN_EV = float(1.0 / _ase.fs**2)
KCAL_PER_MOL_IN_EV = float(_ase.kcal / _ase.mol)

"""The integrators and thermostats that ``dmts-ipi i-pi`` adds to i-PI.

======================  =============================================================
``respa``               splitting 'baoab-respa': BAOAB in every inner step
``level_forces``        forces of the levels, for its loop on plain arrays
``thermostats``         friction by element or atom: Langevin, fast-forward Langevin
``bonds``               friction along short pairs: the bond thermostat
``propagators``         the registry: i-PI's splittings, ours, and other packages'
``propagator_step``     a propagator of another package as an integrator of i-PI
``thermostat_engine``   a thermostat of another package in i-PI
``inputs``              the XML tags of all of them, read and stored
======================  =============================================================

Everything here is in atomic units, as in i-PI. Nothing is changed by an import:
``patches.integrators`` makes i-PI use these classes, and an input without our tags then runs the
same code as before.
"""

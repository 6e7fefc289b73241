"""The integrators and thermostats that ``dmts-ipi i-pi`` adds to i-PI.

=================  ==================================================================
``respa``          splitting 'baoab-respa': BAOAB in every inner step
``thermostats``    friction by element or atom, for Langevin and fast-forward Langevin
``bonds``          friction along short pairs: the bond thermostat
``inputs``         their XML tags, read and stored
``register``       makes i-PI know them; checks every name of i-PI that we rely on
=================  ==================================================================

Everything here is in atomic units, as in i-PI. Nothing is changed by an import: ``register()``
puts two names of ours in the place of two of i-PI's, and an input without our tags then runs the
same code as before.
"""

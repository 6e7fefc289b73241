"""Every change of i-PI in its own process: ``table`` lists them, ``install`` installs them.

======================  ====================================================================
``table``               name, reason, gain, fallback and expected names of i-PI, in one order
``install``             checks the installed i-PI and installs the rows
``switches``            which of them are off in this process
``integrators``         our tags and integrators (``ipi/motion``)
``exchange``            forces exchanged on the thread that needs them
``lockstep_systems``    several systems in one i-PI ask for forces together
``prefetched_rng``      random numbers drawn while the teacher is evaluated
``deferred_outputs``    outputs written while drivers work
``output_sync``         files synced to disk with each checkpoint
``fast_xyz_writer``     frames formatted at once
``fast_checkpoints``    restart states kept twice a second, arrays formatted once
``softexit_latency``    i-PI notices its end 10 times a second
``single_steps``        single time steps after a rewind
``profiler``            records where the time goes
======================  ====================================================================

Each module has ``install()``; those that tests take back have ``remove()``.
"""

"""A session of a run: processes, supervision, checkpoints, sockets."""

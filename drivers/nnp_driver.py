#!/usr/bin/env python
"""Driver of the slow force: the teacher (NNP), for i-PI.

    python drivers/nnp_driver.py --model water-teacher --structure water.xyz --unix teacher

Composition only: any model loads here, the options and exit statuses are in
``dmts_ipi.ipi.client.driver``, the models in ``dmts_ipi.models.load``, telemetry in
``dmts_ipi.watchdog``.
"""

import sys
from collections.abc import Sequence
from functools import partial


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the driver; returns its exit status."""
    from dmts_ipi.ipi.client.driver import main as run
    from dmts_ipi.models.devices import resolve_device
    from dmts_ipi.models.load import load_model
    from dmts_ipi.watchdog.publisher import opener

    return run(
        "nnp_driver",
        load_model,
        default_dtype=None,
        argv=argv,
        telemetry=partial(opener, reference=True),
        resolve_device=resolve_device,
        role="teacher",
    )


if __name__ == "__main__":
    sys.exit(main())

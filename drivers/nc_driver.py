#!/usr/bin/env python
"""Driver of the fast force: the student (non-conservative), for i-PI.

    python drivers/nc_driver.py --model water-student --structure water.xyz --unix student

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
        "nc_driver",
        load_model,
        default_dtype="float32",
        argv=argv,
        telemetry=partial(opener, reference=False),
        resolve_device=resolve_device,
        role="student",
    )


if __name__ == "__main__":
    sys.exit(main())

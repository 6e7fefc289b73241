"""Standard output belongs to the result: what compiled code prints goes to standard error."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os
from dmts_ipi.core.console import log_to_stderr, reserve_stdout
import logging
log_to_stderr()
log_to_stderr()
reserve_stdout()
os.write(1, b"SCF 1\\n")
logging.getLogger("dmts_ipi.models.x").info("loaded")
print("{}")
"""


def test_only_the_result_is_on_standard_output() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
    assert done.stderr.splitlines() == ["SCF 1", "loaded"]

"""Compiles the student's kernels into a wheel, for machines without a C compiler.

At run time the sources are compiled for the machine at hand (``-march=native``), which is faster;
the libraries made here are taken where that fails. They hold the sizes of the student that
``distill`` trains by default, for 1 to 5 elements, and so of the shipped one (``prebuilt.json``).
Where there is no compiler while the wheel is built, it holds Python alone.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """Adds ``dmts_ipi/prebuilt/*.so`` to a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is written; ``version`` is ``editable`` for ``pip install -e``."""
        if self.target_name != "wheel" or version == "editable" or sys.platform != "linux":
            return
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location(
            "compiled", root / "dmts_ipi/core/compiled.py"
        )
        assert spec is not None
        assert spec.loader is not None
        compiled = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compiled)
        sources = root / "dmts_ipi/students/density"
        wanted = json.loads((sources / "prebuilt.json").read_text())
        units = [sources / name for name in wanted["units"]]
        headers = [sources / name for name in wanted["headers"]]
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        try:
            for flags in wanted["flags"]:
                for file in compiled.build_portable(folder, "student", units, flags, headers):
                    build_data["force_include"][str(file)] = f"dmts_ipi/prebuilt/{file.name}"
        except compiled.NotCompiled as error:
            self.app.display_warning(f"no kernels in this wheel: {error}")
            build_data["force_include"] = {
                k: v for k, v in build_data["force_include"].items() if "/prebuilt/" not in v
            }
            return
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"

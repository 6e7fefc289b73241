"""The device by name; ``auto`` is the GPU where torch sees one."""

from __future__ import annotations

import pytest

from dmts_ipi.core.errors import InputError
from dmts_ipi.models import devices
from dmts_ipi.models.devices import check_device, resolve_device


@pytest.mark.parametrize(("gpu", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, chosen: str
) -> None:
    monkeypatch.setattr(devices, "cuda_is_available", lambda: gpu)
    assert resolve_device() == resolve_device("auto") == chosen
    assert resolve_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_is_available", lambda: False)
    check_device("auto")
    with pytest.raises(InputError, match="must be auto, cpu, cuda or cuda:N"):
        resolve_device("cudaX")
    with pytest.raises(InputError, match="sees no NVIDIA GPU"):
        resolve_device("cuda:0")

"""The device of a model by name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""

from __future__ import annotations

from dmts_ipi.core.errors import InputError

AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda")


def resolve_device(device: str = AUTO) -> str:
    """The device on which a model is put.

    Args:
        device: ``auto`` is ``cuda`` where torch sees an NVIDIA GPU, else ``cpu``; ``cpu``,
            ``cuda`` and ``cuda:N`` are returned as they are once they are checked.

    Returns:
        ``cpu``, ``cuda`` or ``cuda:N``: what a command prints and records.

    Raises:
        InputError: no such device is here; the message says what there is.
    """
    if device == AUTO:
        return "cuda" if cuda_is_available() else "cpu"
    check_device(device)
    return device


def cuda_is_available() -> bool:
    """Whether torch is installed and sees an NVIDIA GPU."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def check_device(device: str) -> None:
    """Refuses a device that torch does not see here; imports torch only where it must.

    Raises:
        InputError: says what there is.
    """
    if device in (AUTO, "cpu"):
        return
    name, _, index = device.partition(":")
    if name != "cuda":
        raise InputError("device", device, "must be auto, cpu, cuda or cuda:N")
    if not cuda_is_available():
        raise InputError(
            "device",
            device,
            "torch sees no NVIDIA GPU on this machine; use --device auto or --device cpu",
        )
    import torch

    if index and not (index.isdigit() and int(index) < torch.cuda.device_count()):
        raise InputError("device", device, f"this machine has {torch.cuda.device_count()} GPUs")

"""Where a network is computed, and in which precision."""

from __future__ import annotations

import torch

from hydrops.errors import HydropsError

#: Instructions for bfloat16 as PyTorch calls them and as people do, the faster ones first.
INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}


def half_instructions() -> str | None:
    """What a processor computes bfloat16 with; None where it has no instructions for it."""
    able = torch.cpu.get_capabilities()
    return next((name for key, name in INSTRUCTIONS.items() if able.get(key)), None)


def computes_in_half(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16.

    A processor without them, or a GPU older than NVIDIA's Ampere, emulates it, which takes many
    times as long as full precision.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return half_instructions() is not None


def mixed_precision(device: torch.device) -> torch.autocast:
    """Context in which convolutions are computed in bfloat16 where a device has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_half(device))


def choose_device(name: str) -> torch.device:
    """The device that a configuration asks for.

    Raises
    ------
    HydropsError
        If it is neither ``cpu`` nor ``cuda``, or CUDA is asked for and absent.
    """
    if name not in ("cpu", "cuda"):
        raise HydropsError(f"device: {name} is neither cpu nor cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise HydropsError(
            "device: cuda was asked for, but no CUDA device can be used here; "
            "ask for a GPU, or say cpu: device in the configuration, --device of a single case"
        )
    return torch.device(name)

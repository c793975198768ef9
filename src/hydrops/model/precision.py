"""Where convolutions are computed in half precision."""

from __future__ import annotations

import torch


def computes_in_half(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16.

    A processor without them, or a GPU older than NVIDIA's Ampere, emulates it, which takes many
    times as long as full precision.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def mixed_precision(device: torch.device) -> torch.autocast:
    """Context in which convolutions are computed in bfloat16 where a device has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_half(device))

"""Bundles, and how MONAI's own tools read them."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.bundle import ConfigParser

from hydrops.model.bundle import INFERENCE, WEIGHTS, Bundle, bundle_folders, read_bundle


def network_of(folder: Path) -> torch.nn.Module:
    """The network that MONAI's parser builds of a bundle, with its weights."""
    parser = ConfigParser()
    parser.read_config(folder / INFERENCE)
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    return network.eval()


def all_bundles(models: Path) -> list[Bundle]:
    """All bundles below a folder, by name and rising version."""
    return [read_bundle(folder) for folder in bundle_folders(models)]

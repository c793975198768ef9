"""Models as they are shipped: MONAI bundles with a checksum and a card.

``models/<name>/<version>/`` holds ``configs/metadata.json`` (versions, input and output format,
what the network was trained on), ``configs/inference.json`` (the network in MONAI's notation),
``models/model.pt`` (weights alone, no code) and ``docs/README.md`` (the model card). Nothing here
imports torch, so a run can be planned without it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydrops.errors import HydropsError
from hydrops.labels import ORGANS
from hydrops.records import sha256_of_file

WEIGHTS = Path("models") / "model.pt"
METADATA = Path("configs") / "metadata.json"
INFERENCE = Path("configs") / "inference.json"
CARD = Path("docs") / "README.md"


@dataclass(frozen=True)
class Bundle:
    """A model on disk; `sha256` is that of its weights, as its metadata promises it."""

    name: str
    version: str
    folder: Path
    sha256: str
    metadata: dict[str, Any]

    @property
    def identifier(self) -> str:
        """Name and version, as results are filed under."""
        return f"{self.name}-{self.version}"

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs that it finds, all where its metadata do not say."""
        return tuple(self.metadata.get("organs", ORGANS))

    @property
    def endolymph(self) -> bool:
        """Whether it tells endolymph from perilymph."""
        return bool(self.metadata.get("endolymph", True))


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's metadata; its place says its name and version.

    Raises
    ------
    HydropsError
        If the metadata is missing, is not JSON, or lacks the checksum.
    """
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        return Bundle(folder.parent.name, folder.name, folder, metadata["weights_sha256"], metadata)
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise HydropsError(
            f"{path}: not the metadata of a model bundle ({error}); fetch the bundle again"
        ) from error


def list_bundles(models_dir: Path) -> list[Bundle]:
    """All bundles below a folder, by name and rising version; hidden folders are none yet."""
    places = [path.parents[1] for path in models_dir.glob(f"*/*/{METADATA}")]
    found = [read_bundle(folder) for folder in places if not folder.name.startswith(".")]
    return sorted(found, key=lambda bundle: (bundle.name, _version_key(bundle.version)))


def find_bundle(models_dir: Path, wanted: str) -> Bundle:
    """The bundle of a name, newest version, or of a ``name-version``.

    Raises
    ------
    HydropsError
        If there is none; the message lists those that there are.
    """
    bundles = list_bundles(models_dir)
    matching = [b for b in bundles if wanted in (b.name, b.identifier)]
    if not matching:
        there = ", ".join(b.identifier for b in bundles) or "none"
        raise HydropsError(f"{models_dir}: no model called {wanted}; there are: {there}")
    return matching[-1]


def verify_weights(bundle: Bundle) -> Path:
    """The file of weights, once its checksum is what the metadata promises.

    Raises
    ------
    HydropsError
        If the weights are missing or were changed.
    """
    path = bundle.folder / WEIGHTS
    if not path.is_file():
        raise HydropsError(f"{path}: the weights of {bundle.identifier} are missing")
    found = sha256_of_file(path)
    if found != bundle.sha256:
        raise HydropsError(
            f"{path}: sha256 is {found}, but {METADATA} says {bundle.sha256}; "
            "the weights were changed or cut off: fetch the bundle again"
        )
    return path


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))

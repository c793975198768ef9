"""Models as they are shipped: MONAI bundles with a checksum and a card.

``models/<name>/<version>/`` holds ``configs/metadata.json`` (versions, input and output format,
what the network was trained on), ``configs/inference.json`` (the network in MONAI's notation),
``models/model.pt`` (weights alone, no code) and ``docs/README.md`` (the model card). Nothing here
imports torch, so a run can be planned without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydrops.errors import HydropsError
from hydrops.labels import ORGANS
from hydrops.model.tasks import KINDS
from hydrops.records import sha256_of_file

WEIGHTS = Path("models") / "model.pt"
METADATA = Path("configs") / "metadata.json"
INFERENCE = Path("configs") / "inference.json"
CARD = Path("docs") / "README.md"
#: What the metadata of every bundle say.
TOLD = ("weights_sha256", "kind", "roles", "optional_roles", "landmarks")


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
        If the metadata is missing, is not JSON, lacks what every model says, or is of a kind of
        model that is not known here.
    """
    path = folder / METADATA
    try:
        metadata = dict(json.loads(path.read_text(encoding="utf-8")))
        lacking = [key for key in TOLD if key not in metadata]
        if lacking:
            raise ValueError(f"without {', '.join(lacking)}")
    except (OSError, ValueError, TypeError) as error:
        raise HydropsError(
            f"{path}: not the metadata of a model bundle ({error}); fetch the bundle again"
        ) from error
    if metadata["kind"] not in KINDS:
        raise HydropsError(
            f"{path}: models of kind {metadata['kind']} are not known to this version of hydrops; "
            "was it made by a newer one?"
        )
    return Bundle(folder.parent.name, folder.name, folder, metadata["weights_sha256"], metadata)


@contextmanager
def understood(bundle: Bundle) -> Iterator[None]:
    """Tell whose metadata it is that cannot be made sense of, while a model is made of them.

    Raises
    ------
    HydropsError
        Instead of what is raised where a value is missing, unknown or of another kind.
    """
    try:
        yield
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise HydropsError(
            f"{bundle.folder / METADATA}: not understood ({error}); was it made by a newer version "
            "of hydrops?"
        ) from error


def bundle_folders(models_dir: Path) -> list[Path]:
    """Folders of all bundles below a folder, by name and rising version; hidden ones are none."""
    places = [path.parents[1] for path in models_dir.glob(f"*/*/{METADATA}")]
    shown = [folder for folder in places if not folder.name.startswith(".")]
    return sorted(shown, key=lambda folder: (folder.parent.name, _version_key(folder.name)))


def find_bundle(models_dir: Path, wanted: str) -> Bundle:
    """The bundle of a name, newest version, or of a ``name-version``; no other one is read.

    Raises
    ------
    HydropsError
        If it cannot be read, or there is none; the message lists those that there are.
    """
    known = {f"{f.parent.name}-{f.name}": f for f in bundle_folders(models_dir)}
    matching = [f for name, f in known.items() if wanted in (name, f.parent.name)]
    if not matching:
        raise HydropsError(
            f"{models_dir}: no model called {wanted}; there are: {', '.join(known) or 'none'}"
        )
    return read_bundle(matching[-1])


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

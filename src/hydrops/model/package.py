"""Make a bundle of a training: weights, MONAI configuration, metadata, model card."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from hydrops.labels import LABELS, LANDMARKS
from hydrops.model.bundle import CARD, INFERENCE, METADATA, WEIGHTS, Bundle, read_bundle
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM
from hydrops.model.pictures import CAPTIONS
from hydrops.model.preprocess import CHANNELS
from hydrops.model.train import TrainOptions
from hydrops.records import sha256_of_file

DATA_SOURCES = (
    "Digital phantoms of this project.",
    "Real labyrinths: Wimmer et al., Human bony labyrinth dataset, Data in Brief 2019;27:104782, "
    "CC BY 4.0 (labels and landmarks; the images themselves were not used).",
)


def write_bundle(options: TrainOptions, weights: Path, models_dir: Path) -> Bundle:
    """Write ``models/<name>/<version>``; an earlier bundle of that version is replaced whole.

    The card is written by `write_card`, once the bundle has been evaluated.
    """
    folder = models_dir / options.name / options.version
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{options.version}-"))
    for part in (WEIGHTS, METADATA, CARD):
        (scratch / part).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, scratch / WEIGHTS)
    _write_json(scratch / METADATA, metadata(options, sha256_of_file(weights)))
    _write_json(scratch / INFERENCE, inference(options))
    (scratch / CARD).write_text(f"# {options.name} {options.version}\n", encoding="utf-8")
    scratch.chmod(0o755)
    if folder.exists():
        shutil.rmtree(folder)
    scratch.replace(folder)
    return read_bundle(folder)


def metadata(options: TrainOptions, sha256: str) -> dict[str, Any]:
    """The bundle's metadata after MONAI's schema, with what this project adds."""
    patch = list(CROP_SHAPE)
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/"
        "0.8.1/meta_schema_20240725.json",
        "version": options.version,
        "changelog": {options.version: "first release"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {},
        "name": options.name,
        "task": "Compartments and landmarks of the inner ear on hydrops MRI",
        "description": options.description,
        "authors": "The hydrops cohort pipeline's authors",
        "copyright": "Apache-2.0",
        "data_source": list(DATA_SOURCES),
        "intended_use": "Research only; not a medical device",
        "weights_sha256": sha256,
        "network": asdict(options.network),
        "training": {
            "seed": options.seed,
            "steps": options.steps,
            "phantoms": options.phantoms,
            "train_specimens": list(options.train_specimens),
            "validation_specimens": list(options.validation_specimens),
        },
        "roles": ["MRC", "HYDROPSMi2"],
        "optional_roles": ["HYDROPSMi2"],
        "landmarks": list(LANDMARKS),
        "spacing_mm": [CROP_SPACING_MM] * 3,
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "MR",
                    "num_channels": len(CHANNELS),
                    "spatial_shape": patch,
                    "dtype": "float32",
                    "value_range": [-2, 2],
                    "is_patch_data": False,
                    "channel_def": {str(i): name for i, name in enumerate(CHANNELS)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(LABELS),
                    "spatial_shape": patch,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(i): name for i, name in enumerate(LABELS)},
                }
            },
        },
    }


def inference(options: TrainOptions) -> dict[str, Any]:
    """The network in MONAI's configuration notation."""
    return {
        "network_def": {
            "_target_": "hydrops.model.network.DualHeadUNet",
            "options": {
                "_target_": "hydrops.model.network.NetworkOptions",
                "channels": list(options.network.channels),
                "residual_units": options.network.residual_units,
            },
        }
    }


def write_card(bundle: Bundle, summary: pd.DataFrame, pictures: Sequence[Path], notes: str) -> Path:
    """Write the model card from the evaluation's table, and put its pictures beside it.

    Parameters
    ----------
    summary
        As `hydrops.model.evaluate.summarise` returns it.
    pictures
        PNG named as in `hydrops.model.pictures.CAPTIONS`.
    notes
        What a person saw who looked at the pictures, Markdown; may be empty.
    """
    training = bundle.metadata["training"]
    folder = (bundle.folder / CARD).parent
    shown = []
    for picture in pictures:
        caption = CAPTIONS[picture.stem]
        shutil.copyfile(picture, folder / picture.name)
        shown.append(f"![{caption}]({picture.name})\n\n{caption}\n")
    specimens = ", ".join(training["train_specimens"])
    text = f"""# {bundle.name} {bundle.version}

{bundle.metadata["description"]}.
Research only; not a medical device.

- **In**: MRC and, optionally, HYDROPS-Mi2 of one ear, {CROP_SHAPE[0]} voxels of
  {CROP_SPACING_MM} mm along R, A and S; without HYDROPS-Mi2 no endolymph is given.
- **Out**: volume fractions of {", ".join(LABELS[1:])}; heatmaps of {", ".join(LANDMARKS)}.
- **Weights**: sha256 `{bundle.sha256}`.

## Trained on

**Simulated images only.** No hydrops MRI is public. The anatomy is that of
{training["phantoms"]} digital phantoms and of the real labyrinths {specimens}
(validation: {", ".join(training["validation_specimens"])}), with endolymph grown inside; the
contrast is drawn anew for each of {training["steps"]} steps (seed {training["seed"]}).
Sources: {" ".join(bundle.metadata["data_source"])}

## How it did

Measured **on simulation**, by `snakemake evaluate`, through registration, location, segmentation
and measurement of whole simulated heads that training never saw. "specimen" ears have the anatomy
of real labyrinths kept out of training. Mean absolute error, bias and limits of agreement are
those of the EH volume ratio of the labyrinth.

{summary.to_markdown(index=False)}

{chr(10).join(shown)}
{notes}
## Limits

Never tried on a patient's hydrops MRI. Malformed, operated or obliterated labyrinths were not
simulated. The endolymph of a voxel is told from its signal, so failed registration or too little
gadolinium makes it wrong: look at the overlay of each ear.
"""
    path = bundle.folder / CARD
    path.write_text(text, encoding="utf-8")
    return path


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

"""Make a bundle of a training: weights, MONAI configuration, metadata, model card."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from hydrops.cohort import markdown_table
from hydrops.errors import HydropsError
from hydrops.files import placed_folder, write_text_atomically
from hydrops.labels import LABELS, LANDMARKS, ORGANS
from hydrops.model.architectures import Architecture, find_architecture
from hydrops.model.bundle import CARD, INFERENCE, METADATA, WEIGHTS, Bundle, read_bundle
from hydrops.model.course import Phase
from hydrops.model.evaluate import AGREEMENT_EXPLAINED
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM
from hydrops.model.inhearit import SLICE_CLASSES
from hydrops.model.network import NetworkOptions
from hydrops.model.pictures import CAPTIONS
from hydrops.model.preprocess import CHANNELS
from hydrops.model.tasks import MR_KIND
from hydrops.model.taught import steps_of, taught_by
from hydrops.model.train import TrainOptions
from hydrops.model.unmix import WAYS, Calibration
from hydrops.records import sha256_of_file

LOG = logging.getLogger(__name__)

PHANTOMS = "Digital phantoms of this project."
MOTION = (
    "Heads move as 242 patients did between two series "
    "(VS_Seg: Shapey et al., Sci Data 2021;8:286)."
)
WIMMER = "Wimmer et al., Human bony labyrinth dataset, Data in Brief 2019;27:104782, CC BY 4.0"
#: How the specimens of that data set are called.
OF_WIMMER = re.compile(r"[FT]\d\d")
USED_OF_LABYRINTHS = "(labels and landmarks; the images themselves were not used)."


def source_of(specimens: Collection[str]) -> str:
    """Whose labelled temporal bones specimens are, by their names."""
    if all(OF_WIMMER.fullmatch(name) for name in specimens):
        return WIMMER
    return f"{len(specimens)} labelled specimens of the user's"


def write_bundle(options: TrainOptions, weights: Path, models_dir: Path) -> Bundle:
    """Write the bundle of an MR training; its card is for `write_card`, once it is evaluated.

    Raises
    ------
    HydropsError
        If nothing beside the weights tells whom they were learned from.
    """
    known = metadata(options, weights)
    target = "hydrops.model.architectures.segmentation_network"
    network = network_definition(target, options=options.network)
    return place_bundle(models_dir, weights, known, network)


def place_bundle(
    models_dir: Path, weights: Path, known: dict[str, Any], network: dict[str, Any]
) -> Bundle:
    """Write ``models/<name>/<version>``; an earlier bundle of that version is replaced whole.

    Parameters
    ----------
    known
        Metadata with at least ``name``, ``version`` and ``weights_sha256``.
    network
        The network in MONAI's configuration notation.
    """
    folder = models_dir / known["name"] / known["version"]
    with placed_folder(folder) as scratch:
        for part in (WEIGHTS, METADATA, CARD):
            (scratch / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, scratch / WEIGHTS)
        _write_json(scratch / METADATA, known)
        _write_json(scratch / INFERENCE, network)
        (scratch / CARD).write_text(f"# {known['name']} {known['version']}\n", encoding="utf-8")
    return read_bundle(folder)


def publish_bundle(bundle: Bundle, models_dir: Path) -> Bundle:
    """Put a bundle that was made elsewhere among the models, replacing one of that version whole.

    One with other weights is replaced with a warning: what was measured by it bears that version.
    """
    folder = models_dir / bundle.name / bundle.version
    if folder.exists() and not _has_weights(folder, bundle.sha256):
        LOG.warning(
            "%s: replaced by one of other weights under the same version; give them a new "
            "`version` in their configuration, so that results of both can be told apart",
            folder,
        )
    with placed_folder(folder) as scratch:
        shutil.copytree(bundle.folder, scratch, dirs_exist_ok=True)
    return read_bundle(folder)


def _has_weights(folder: Path, sha256: str) -> bool:
    """Whether a folder holds a bundle of such weights; one that cannot be read does not."""
    try:
        return read_bundle(folder).sha256 == sha256
    except HydropsError:
        return False


def phases_trained(phases: Sequence[Phase], weights: Path) -> list[dict[str, Any]]:
    """Phases as metadata tell them, each with the steps that it was trained for."""
    done = steps_of(weights, [phase.steps for phase in phases])
    return [asdict(phase) | {"steps": steps} for phase, steps in zip(phases, done)]


def metadata(options: TrainOptions, weights: Path) -> dict[str, Any]:
    """The bundle's metadata after MONAI's schema, with what this project adds."""
    # Specimens that the training saw; none where there were to be none.
    taught = taught_by(weights)
    patch = list(CROP_SHAPE)
    able = find_architecture(options.network)
    sources = [PHANTOMS]
    if taught:
        sources.append(f"Real labyrinths: {source_of(taught)} {USED_OF_LABYRINTHS}")
    return common_metadata(options, sha256_of_file(weights), sources) | {
        "task": _task(able),
        "kind": MR_KIND,
        "network": asdict(options.network),
        "training": {
            "seed": options.seed,
            "phases": phases_trained(options.phases, weights),
            "phantoms": options.phantoms,
            "train_specimens": [n for n in options.train_specimens if n in taught],
            "validation_specimens": [n for n in options.validation_specimens if n in taught],
            "digests": taught,
        },
        "roles": ["MRC", "HYDROPSMi2"],
        "optional_roles": ["HYDROPSMi2"],
        "organs": list(able.organs),
        "endolymph": able.endolymph,
        "landmarks": list(LANDMARKS) if able.landmarks else [],
        "spacing_mm": list(CROP_SPACING_MM),
        "network_data_format": data_format("MR", CHANNELS, _classes(able), patch, (-2.0, 2.0)),
    }


def _task(able: Architecture) -> str:
    """What a network does, in words."""
    what = "Compartments" if able.endolymph else "Organs"
    image = "hydrops MRI" if able.endolymph else "MR cisternography"
    return f"{what}{' and landmarks' if able.landmarks else ''} of the inner ear on {image}"


def _classes(able: Architecture) -> tuple[str, ...]:
    """What each channel of a network's output is; of one without endolymph, half are empty."""
    if able.sided:
        return ("background", *map(" ".join, SLICE_CLASSES))
    if able.endolymph:
        return LABELS
    return ("background", *(name for organ in ORGANS for name in (organ, "unused")))


class Release(Protocol):
    """What a training's configuration says of the version that it makes."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def version(self) -> str:
        """Of the model."""

    @property
    def description(self) -> str:
        """What the model is."""

    @property
    def changes(self) -> str:
        """What is new in this version."""


def common_metadata(release: Release, sha256: str, sources: Sequence[str]) -> dict[str, Any]:
    """What the metadata of every bundle says."""
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/"
        "0.8.1/meta_schema_20240725.json",
        "version": release.version,
        "changelog": {release.version: release.changes},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"hydrops": version("hydrops")},
        "name": release.name,
        "description": release.description,
        "authors": "The hydrops cohort pipeline's authors",
        "copyright": "Apache-2.0",
        "data_source": " ".join(sources),
        "intended_use": "Research only; not a medical device",
        "weights_sha256": sha256,
    }


def data_format(
    modality: str,
    channels: Sequence[str],
    classes: Sequence[str],
    patch: Sequence[int],
    value_range: tuple[float, float],
) -> dict[str, Any]:
    """Input and output of a network in MONAI's notation."""
    same = {"spatial_shape": list(patch), "dtype": "float32", "is_patch_data": False}
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude" if modality == "MR" else "hounsfield",
                "modality": modality,
                "num_channels": len(channels),
                "value_range": list(value_range),
                "channel_def": {str(i): name for i, name in enumerate(channels)},
                **same,
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "format": "segmentation",
                "num_channels": len(classes),
                "value_range": [],
                "channel_def": {str(i): name for i, name in enumerate(classes)},
                **same,
            }
        },
    }


def network_definition(target: str, **sizes: NetworkOptions) -> dict[str, Any]:
    """A network in MONAI's configuration notation.

    Parameters
    ----------
    target
        What builds it, by its full name.
    sizes
        Arguments of that.
    """
    kind = "hydrops.model.network.NetworkOptions"
    arguments = {name: {"_target_": kind, **asdict(size)} for name, size in sizes.items()}
    return {"network_def": {"_target_": target, **arguments}}


def place_pictures(bundle: Bundle, pictures: Sequence[Path], captions: Mapping[str, str]) -> str:
    """Put pictures beside a bundle's card; returns the Markdown that shows them.

    Parameters
    ----------
    captions
        By the name of a picture's file, without its end.
    """
    folder = (bundle.folder / CARD).parent
    shown = []
    for picture in pictures:
        caption = captions[picture.stem]
        shutil.copyfile(picture, folder / picture.name)
        shown.append(f"![{caption}]({picture.name})\n\n{caption}\n")
    return "\n".join(shown)


def write_card(
    bundle: Bundle, summary: pd.DataFrame, pictures: Sequence[Path], notes: str, anatomy: str = ""
) -> Path:
    """Write the model card from the evaluation's table, and put its pictures beside it.

    Parameters
    ----------
    summary
        As `hydrops.model.evaluate.summarise` returns it.
    pictures
        PNG named as in `hydrops.model.pictures.CAPTIONS`.
    notes
        What a person saw who looked at the pictures, Markdown; may be empty.
    anatomy
        As `hydrops.model.evaluate.whose_anatomy` returns it.
    """
    training = bundle.metadata["training"]
    taught = f"{training['phantoms']} digital phantoms"
    if training["train_specimens"]:
        taught += f""" and of the real labyrinths {", ".join(training["train_specimens"])}
(validation: {", ".join(training["validation_specimens"])})"""
    phases = ", then ".join(
        f"{phase['steps']} steps (spread {phase['spread']}, Dice loss {phase['dice']}"
        + (f", cross entropy {phase['entropy']})" if phase.get("entropy", 1.0) != 1.0 else ")")
        for phase in training["phases"]
    )
    given = f"volume fractions of {', '.join(LABELS[1:])}"
    if not bundle.endolymph:
        given = f"{', '.join(bundle.organs)}, for the EH area ratio; no endolymph, no volume ratio"
    text = f"""# {bundle.name} {bundle.version}

{bundle.metadata["description"]}.
Research only; not a medical device. Licence: {bundle.metadata["copyright"]}.

- **In**: MRC and, optionally, HYDROPS-Mi2 of one ear, {" x ".join(map(str, CROP_SHAPE))}
  voxels of {" x ".join(map(str, CROP_SPACING_MM))} mm along R, A and S; without HYDROPS-Mi2 no
  EH ratio is given.
- **Out**: {given}; landmarks:
  {", ".join(bundle.metadata["landmarks"]) or "none"}.
- **Weights**: sha256 `{bundle.sha256}`.

## Trained on

**Simulated images only.** No hydrops MRI is public. The anatomy is that of
{taught}, with endolymph grown inside; the
contrast is drawn anew at every step (seed {training["seed"]}): {phases}
(a spread of 1 is any contrast that is thinkable, 0 the one that the phantom has on average).
{_how_calibrated(bundle)}Sources: {bundle.metadata["data_source"]} {MOTION}

## How it did

Measured **on simulation**, by `snakemake evaluate`, through registration, location, segmentation
and measurement of whole simulated heads that training never saw. {_anatomy_tested(summary)}
{anatomy}
{AGREEMENT_EXPLAINED}

{markdown_table(summary.dropna(axis=1, how="all"))}

{place_pictures(bundle, pictures, CAPTIONS)}
{notes}
## Limits

Never tried on a patient's hydrops MRI. Malformed, operated or obliterated labyrinths were not
simulated. HYDROPS-Mi2 tells endolymph by its signal, so a failed registration makes it wrong: look
at the overlay of each ear.{_limits(bundle)}
"""
    path = bundle.folder / CARD
    write_text_atomically(path, text)
    return path


def _anatomy_tested(summary: pd.DataFrame) -> str:
    if "anatomy" in summary and "specimen" in set(summary["anatomy"]):
        return '"specimen" ears have the anatomy\nof real labyrinths kept out of training.'
    return "Phantoms alone: the folder of\nreal labyrinths (`training: specimens`) was not there."


def _how_calibrated(bundle: Bundle) -> str:
    """What a card says of a calibration; nothing where there was none."""
    known = bundle.metadata.get("calibrated_on")
    if known is None:
        return ""
    calibrations = Calibration.all_of(bundle.metadata)
    sizes = " and ".join(" x ".join(map(str, c.voxel_mm)) for c in calibrations[WAYS[0]])
    say, say_alone = (" and ".join(f"{c.levels.say:.0%}" for c in calibrations[w]) for w in WAYS)
    reach, reach_alone = (" and ".join(str(c.half_width) for c in calibrations[w]) for w in WAYS)
    spread = known.get("uptake_sd")
    uptake = f", with an uptake that differs between organs (SD {spread:.0%})" if spread else ""
    whose = (
        "real anatomy, of\nthe labyrinths that training and validation saw, and the interval is "
        "wide enough for phantoms, too;\nfor the anatomy of others it is an assumption"
        if bundle.metadata["training"]["train_specimens"]
        else "phantoms"
    )
    return f"""How full a voxel is and how much of that is endolymph comes from the signal as well
as from the network (`hydrops.model.unmix`): from PPI and PEI, their signs told by each other,
where there are both (`hydrops.model.unfold`), else from HYDROPS. This was calibrated on
{known["ears"]} more simulated ears (seed {known["seed"]}) with any noise, half of them of fluids
near those that the published inversion times null, half of fluids of T1 up to the longest that was
measured{uptake} (`hydrops.phantom.signal.draw_fluids`), apart for voxels of {sizes} mm;
voxels of another size lie between, by their largest face. The levels are those of {whose}.
The network has {say} of the say in the ratio (by HYDROPS alone {say_alone}), the signal the rest;
where they are far apart, the network has all of it.
An ear's ratio is given with an interval of +-{reach} (by HYDROPS alone
+-{reach_alone}), meant to hold for {known["coverage"]:.0%} of ears, and of as much
more as the network changes the ratio by being far from the signal. Inversion times other than the
published ones, and other T1, are allowed for by physics (`benchmarks/results/endolymph.tsv` shows
how well).
"""


def _limits(bundle: Bundle) -> str:
    """What a card says of the limits of a volume ratio; nothing where there is none."""
    if "calibrated_on" not in bundle.metadata:
        return ""
    return """ An ear that hardly any gadolinium has reached is refused. Images with
larger voxels than the published ones have a wider interval (`benchmarks/results/resolution.tsv`);
those whose voxels have a face a quarter larger than the largest of a calibration are refused. The
interval allows for other noise, motion, dose, anatomy and T1, as far as they were simulated, and
`benchmarks/results/endolymph.tsv` shows kinds of scan, six ears each, of which it held less often;
how much the T1 of patients' fluids
differ is an assumption, and so is how evenly the organs take up gadolinium: where it has reached
cochlea or vestibule far less than the other, the ear is refused. PPI and PEI whose noise tells that
they were scaled differently, by 1.45 or more, are refused; between 1.25 and that their ratio may be
wrong. The area ratio of the vestibule
hangs on how the head lies, even with true regions (`benchmarks/results/repeatability.tsv`)."""


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

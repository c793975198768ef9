"""The MR task: the dual-headed network on simulated crops of MRC and HYDROPS-Mi2."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from hydrops.errors import HydropsError
from hydrops.files import write_text_atomically
from hydrops.labels import LANDMARKS
from hydrops.model.architectures import build_network, fast_layout, find_architecture
from hydrops.model.course import Phase, alone_in, run_course
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM
from hydrops.model.inhearit_task import SliceTask
from hydrops.model.losses import (
    LANDMARK_WEIGHT,
    landmark_loss,
    ratio_loss,
    soft_cross_entropy,
    soft_dice_loss,
)
from hydrops.model.network import NetworkOptions, landmark_positions
from hydrops.model.options import voxels_made_one
from hydrops.model.precision import mixed_precision
from hydrops.model.simulate import (
    Pool,
    PoolJob,
    Specimen,
    draw_images,
    load_specimens,
    onto_crop,
    read_pool,
    write_pool_part,
)
from hydrops.model.tasks import SCHEMA
from hydrops.model.unmix import COVERAGE, LEAST_HEADS
from hydrops.validate import load_yaml

LOG = logging.getLogger(__name__)

#: Weight of the EH ratio in the loss beside a cross entropy of weight one: of similar size once
#: trained a while.
RATIO_WEIGHT = 2.0
#: Beginnings of the scores that say nothing of a network that does not tell endolymph.
OF_ENDOLYMPH = ("els_", "ratio_")
#: SD of a landmark's heatmap, voxels: 0.6 mm.
SIGMA_VOXELS = tuple(0.6 / mm for mm in CROP_SPACING_MM)


@dataclass(frozen=True)
class TrainOptions:
    """One training, as its configuration file gives it.

    Specimens are split by name: `train_specimens` are learned from, `validation_specimens` watch
    the training, and those in neither are never read here. `calibration_heads` of real
    anatomy, and half as many phantoms, are simulated once it is trained, in each of the voxel sizes
    of `hydrops.model.calibrate`.
    """

    name: str
    version: str
    description: str
    changes: str
    seed: int
    phantoms: int
    crops_per_ear: int
    redraws_per_specimen: int
    train_specimens: tuple[str, ...]
    validation_specimens: tuple[str, ...]
    validation_phantoms: int
    phases: tuple[Phase, ...]
    batch: int
    patch: tuple[int, int, int]
    weight_decay: float
    missing_second_image: float
    validate_every: int
    calibration_heads: int
    calibration_seed: int
    network: NetworkOptions

    @property
    def seen_specimens(self) -> tuple[str, ...]:
        """Those that training or validation sees."""
        return self.train_specimens + self.validation_specimens

    @staticmethod
    def load(path: Path) -> TrainOptions:
        """Read a configuration.

        Raises
        ------
        HydropsError
            If the file cannot be read, breaks the schema of a training, a key is missing or
            unknown, a specimen is in both parts, or a patch is larger than a crop.
        """
        values = load_yaml(path, SCHEMA)
        try:
            values["network"] = NetworkOptions.from_dict(values["network"])
            values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
            for key in ("train_specimens", "validation_specimens", "patch"):
                values[key] = tuple(values[key])
            options = TrainOptions(**values)
        except (TypeError, KeyError) as error:
            raise HydropsError(f"{path}: not a training configuration ({error})") from error
        if options.network.strides is not None:
            voxels_made_one(options.network, options.patch, path)
        able = find_architecture(options.network)
        if not able.sided and any(edge > whole for edge, whole in zip(options.patch, CROP_SHAPE)):
            raise HydropsError(
                f"{path}: patch: {list(options.patch)} is more than a crop has voxels, "
                f"{list(CROP_SHAPE)}"
            )
        if able.endolymph and options.calibration_heads < LEAST_HEADS:
            raise HydropsError(
                f"{path}: calibration_heads: {options.calibration_heads}, but an interval of "
                f"{COVERAGE:.0%} needs {LEAST_HEADS} of a kind, twice that with real labyrinths, "
                "and some more, for a few are refused"
            )
        both = set(options.train_specimens) & set(options.validation_specimens)
        if both:
            raise HydropsError(f"{path}: in training and in validation: {', '.join(sorted(both))}")
        return options


def pool_jobs(
    options: TrainOptions, learned: Sequence[Specimen], watching: Sequence[Specimen]
) -> tuple[list[PoolJob], list[PoolJob]]:
    """Parts of the pools to train on and to validate on; no two are drawn by the same numbers."""

    def of(specimen: Specimen, kind: str, seed: int, count: int) -> list[PoolJob]:
        # Without the name, every labyrinth would be given the same endolymph and places.
        seeds, source = (seed, crc32(specimen.name.encode())), f"{kind}-{specimen.name}"
        return [PoolJob(source, part, (*seeds, part), specimen) for part in range(count)]

    seed, redraws = options.seed, options.redraws_per_specimen
    train = [PoolJob("phantom", part, (seed, part)) for part in range(options.phantoms)]
    validation = [
        PoolJob("validation", part, (seed + 1, part)) for part in range(options.validation_phantoms)
    ]
    train += [job for s in learned for job in of(s, "specimen", seed + 2, redraws)]
    validation += [
        job for s in watching for job in of(s, "validation", seed + 3, options.validation_phantoms)
    ]
    return train, validation


def pool_folder(options: TrainOptions, training: Path) -> Path:
    """Where the pool of a training lies: drawn otherwise, it lies elsewhere."""
    return training / f"ears-{options.seed}-{options.crops_per_ear}"


def trained_parts(options: TrainOptions, training: Path) -> list[Path]:
    """Parts of its pool that a training learned from, as far as they are there."""
    sources = {"phantom", *(f"specimen-{name}" for name in options.train_specimens)}
    parts = sorted(pool_folder(options, training).glob("*-*.npy"))
    return [path for path in parts if path.stem.rsplit("-", 1)[0] in sources]


def make_pools(
    options: TrainOptions, specimens_folder: Path, training: Path, processes: int
) -> tuple[Pool, Pool, dict[str, str]]:
    """Draw, or read where they are, the geometries to train on and to validate on.

    Without the folder of specimens, training goes on with phantoms alone and says so.

    Parameters
    ----------
    training
        Folder of the training, for `pool_folder`.

    Returns
    -------
    Both pools, and the names of the specimens in them with a digest of each.

    Raises
    ------
    HydropsError
        If the specimens cannot be read, or are not what a pool that is there was drawn from.
    """
    folder = pool_folder(options, training)
    folder.mkdir(parents=True, exist_ok=True)
    seen: dict[str, str] = {}
    learned: list[Specimen] = []
    watching: list[Specimen] = []
    if specimens_folder.is_dir():
        learned, watching = (
            load_specimens(specimens_folder, names)
            for names in (options.train_specimens, options.validation_specimens)
        )
        seen = {specimen.name: specimen.digest for specimen in (*learned, *watching)}
        _refuse_copies(learned, watching)
        _tell_drawn_from(folder, seen)
    else:
        LOG.warning("%s is missing: training on phantoms alone", specimens_folder)
    train, validation = pool_jobs(options, learned, watching)
    with ProcessPoolExecutor(processes) as executor:
        futures = [
            executor.submit(write_pool_part, folder, job, crops)
            for jobs, crops in ((train, options.crops_per_ear), (validation, 1))
            for job in jobs
        ]
        for number, future in enumerate(futures, start=1):
            future.result()
            if number % 25 == 0 or number == len(futures):
                LOG.info("drawn %d of %d ears", number, len(futures))
        paths = [future.result() for future in futures]
    return read_pool(paths[: len(train)]), read_pool(paths[len(train) :]), seen


def _refuse_copies(learned: Sequence[Specimen], watching: Sequence[Specimen]) -> None:
    """Refuse a specimen that watches the training and is learned from under another name."""
    known = {specimen.digest: specimen.name for specimen in learned}
    for specimen in watching:
        if specimen.digest in known:
            raise HydropsError(
                f"{specimen.name} and {known[specimen.digest]} are one labyrinth, which would be "
                "learned from and watch the training; keep one"
            )


def _tell_drawn_from(pool: Path, specimens: Mapping[str, str]) -> None:
    """Leave digests of specimens with the pool that is drawn from them; refuse others than before.

    Parts that are there are not drawn again, so they would be those of an earlier label.
    """
    path = pool / "specimens.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changed = sorted(n for n, d in specimens.items() if before.get(n, d) != d)
    if changed:
        raise HydropsError(
            f"{pool}: was drawn from {', '.join(changed)} as they were before their label or their "
            "landmarks changed; remove the folder to draw it anew"
        )
    write_text_atomically(path, json.dumps({**before, **specimens}, indent=1) + "\n")


class _Samples(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Sample `index` of what is left of a phase, the same whenever and wherever it is drawn."""

    def __init__(
        self, pool: Pool, options: TrainOptions, spread: float, part: tuple[int, int]
    ) -> None:
        self.pool, self.options, self.spread = pool, options, spread
        self.first, self.last = part

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.options.seed, 7, self.first + index])
        chosen = int(rng.integers(len(self.pool)))
        fractions = self.pool.shares(chosen)
        images = draw_images(fractions, rng, self.options.missing_second_image, self.spread)
        inside, points = onto_crop(fractions[:6], self.pool.landmarks[chosen])
        target = torch.cat([1.0 - inside.sum(0, keepdim=True), inside])
        start = [
            int(np.clip((n - size) // 2 + rng.integers(-2, 3) / mm, 0, n - size))
            for n, size, mm in zip(CROP_SHAPE, self.options.patch, CROP_SPACING_MM)
        ]
        patch = (slice(None), *(slice(s, s + n) for s, n in zip(start, self.options.patch)))
        return images[patch], target[patch], torch.from_numpy(points - np.array(start, np.float32))


class PairedTask:
    """Segment and find landmarks in simulated crops; a `hydrops.model.course.Task`."""

    def __init__(self, options: TrainOptions, pool: Pool, validation: Pool) -> None:
        self.options, self.pool, self.validation = options, pool, validation
        torch.manual_seed(options.seed)
        self.network = fast_layout(build_network(options.network))
        self.endolymph = find_architecture(options.network).endolymph

    def samples(self, phase: Phase, first: int, last: int) -> _Samples:
        """Samples `first` to `last` of the training."""
        return _Samples(self.pool, self.options, phase.spread, (first, last))

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross entropy, Dice, error of the ratio and of the landmarks."""
        images, target, points = batch
        target = target if self.endolymph else without_endolymph(target)
        images = images.to(memory_format=torch.channels_last_3d)
        with mixed_precision(images.device):
            logits, heat = network(images)
        logits = logits.float()
        probabilities = torch.softmax(logits, dim=1)
        parts = {
            "entropy": soft_cross_entropy(logits, target),
            "dice": soft_dice_loss(probabilities, target),
            "ratio": ratio_loss(probabilities, target),
            "landmarks": torch.zeros((), device=logits.device)
            if heat is None
            else landmark_loss(heat.float(), points, SIGMA_VOXELS),
        }
        loss = (
            phase.overlap(parts["entropy"], parts["dice"])
            + RATIO_WEIGHT * parts["ratio"]
            + LANDMARK_WEIGHT * parts["landmarks"]
        )
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    def validate(self, network: torch.nn.Module, phase: Phase) -> dict[str, float]:
        """Scores on whole crops of ears that are not trained on."""
        where = next(network.parameters()).device
        scores = validate(network, self.validation, where, phase.spread)
        told = {key: score for key, score in scores.items() if not key.startswith(OF_ENDOLYMPH)}
        return scores if self.endolymph else told


def without_endolymph(target: torch.Tensor) -> torch.Tensor:
    """Fractions (batch, classes, ...) in which all fluid is perilymph."""
    merged = target.clone()
    merged[:, 1::2] += target[:, 2::2]
    merged[:, 2::2] = 0.0
    return merged


def train(
    options: TrainOptions,
    specimens_folder: Path,
    folder: Path,
    device: str = "cpu",
    threads: int = 2,
) -> Path:
    """Train, or go on from the last checkpoint in `folder`, and leave `weights.pt` there.

    Raises
    ------
    HydropsError
        If the specimens cannot be read, or see `hydrops.model.course.run_course`.
    """
    with alone_in(pool_folder(options, folder)):
        pool, validation, seen = make_pools(options, specimens_folder, folder, threads)
    task = SliceTask if find_architecture(options.network).sided else PairedTask
    return run_course(task(options, pool, validation), folder, seen, device, threads)


def validate(
    network: torch.nn.Module, pool: Pool, where: torch.device, spread: float
) -> dict[str, float]:
    """Scores on whole crops: Dice of majority labels, ratio error and bias, landmark error."""
    network.eval()
    rows = []
    for index in range(len(pool)):
        fractions = pool.shares(index)
        images = draw_images(fractions, np.random.default_rng([11, index]), 0.0, spread)
        with mixed_precision(where):
            logits, heat = network(images[None].to(where))
        probabilities = torch.softmax(logits[0].float().cpu(), dim=0)
        target, marks = onto_crop(fractions[:6], pool.landmarks[index])
        error = torch.full((len(LANDMARKS),), torch.nan)
        if heat is not None:
            positions, _ = landmark_positions(heat[0].float().cpu())
            apart = (positions - torch.from_numpy(marks)) * torch.tensor(CROP_SPACING_MM)
            error = torch.linalg.vector_norm(apart, dim=1)
        tfs, els = probabilities[1:].sum(0), probabilities[2::2].sum(0)
        tfs_true, els_true = target.sum(0), target[1::2].sum(0)
        rows.append(
            [
                _dice(tfs > 0.5, tfs_true > 0.5),
                _dice(els > 0.5, els_true > 0.5),
                float(els.sum() / tfs.sum() - els_true.sum() / tfs_true.sum()),
                float(tfs.sum() / tfs_true.sum() - 1.0),
                float(error.mean()),
            ]
        )
    table = np.array(rows)
    means = [float(mean) for mean in table.mean(0)]
    return {
        "tfs_dice": round(means[0], 4),
        "els_dice": round(means[1], 4),
        "ratio_mae": round(float(np.abs(table[:, 2]).mean()), 4),
        "ratio_bias": round(means[2], 4),
        "tfs_volume_bias": round(means[3], 4),
        "landmark_mm": round(means[4], 3),
    }


def _dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()).clamp_min(1))

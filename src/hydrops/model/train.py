"""Train the dual-headed network on simulated crops: seeded, resumable, watched on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from hydrops.errors import HydropsError
from hydrops.labels import LABELS, LANDMARKS
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM
from hydrops.model.network import DualHeadUNet, NetworkOptions, landmark_positions
from hydrops.model.simulate import (
    Pool,
    Specimen,
    draw_images,
    load_specimens,
    read_pool,
    write_pool_part,
)

LOG = logging.getLogger(__name__)

#: Of cross entropy, Dice, EH ratio and landmarks in the loss: of similar size once trained a while.
LOSS_WEIGHTS = (1.0, 1.0, 2.0, 0.05)


@dataclass(frozen=True)
class TrainOptions:
    """One training, as its configuration file gives it.

    Specimens are split by name: `train_specimens` are learned from, `validation_specimens` watch
    the training, and those in neither are never read here.
    """

    name: str
    version: str
    description: str
    seed: int
    phantoms: int
    crops_per_ear: int
    redraws_per_specimen: int
    train_specimens: tuple[str, ...]
    validation_specimens: tuple[str, ...]
    validation_phantoms: int
    steps: int
    batch: int
    patch: int
    learning_rate: float
    weight_decay: float
    missing_second_image: float
    validate_every: int
    network: NetworkOptions

    @staticmethod
    def load(path: Path) -> TrainOptions:
        """Read a configuration.

        Raises
        ------
        HydropsError
            If a key is missing or unknown, or a specimen is in both parts.
        """
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        try:
            values["network"] = NetworkOptions.from_dict(values["network"])
            for key in ("train_specimens", "validation_specimens"):
                values[key] = tuple(values[key])
            options = TrainOptions(**values)
        except (TypeError, KeyError) as error:
            raise HydropsError(f"{path}: not a training configuration ({error})") from error
        both = set(options.train_specimens) & set(options.validation_specimens)
        if both:
            raise HydropsError(f"{path}: in training and in validation: {', '.join(sorted(both))}")
        return options


#: Source, part, seed and specimen of one part of a pool.
_PoolJob = tuple[str, int, int, Specimen | None]


def make_pools(
    options: TrainOptions, specimens_folder: Path, folder: Path, processes: int
) -> tuple[Pool, Pool]:
    """Draw, or read where they are, the geometries to train on and to validate on.

    Without the folder of specimens, training goes on with phantoms alone and says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train: list[tuple[str, int, int, Specimen | None]] = [
        ("phantom", part, options.seed, None) for part in range(options.phantoms)
    ]
    validation: list[tuple[str, int, int, Specimen | None]] = [
        ("validation", part, options.seed + 1, None) for part in range(options.validation_phantoms)
    ]
    if specimens_folder.is_dir():
        for specimen in load_specimens(specimens_folder, options.train_specimens):
            train += [
                (f"specimen-{specimen.name}", part, options.seed + 2, specimen)
                for part in range(options.redraws_per_specimen)
            ]
        for specimen in load_specimens(specimens_folder, options.validation_specimens):
            validation += [
                (f"validation-{specimen.name}", part, options.seed + 3, specimen)
                for part in range(options.validation_phantoms)
            ]
    else:
        LOG.warning("%s is missing: training on phantoms alone", specimens_folder)
    with ProcessPoolExecutor(processes) as executor:
        futures = [
            executor.submit(write_pool_part, folder, part, source, seed, crops, specimen)
            for jobs, crops in ((train, options.crops_per_ear), (validation, 1))
            for source, part, seed, specimen in jobs
        ]
        for number, future in enumerate(futures, start=1):
            future.result()
            if number % 25 == 0 or number == len(futures):
                LOG.info("drawn %d of %d ears", number, len(futures))
        paths = [future.result() for future in futures]
    return read_pool(paths[: len(train)]), read_pool(paths[len(train) :])


class _Samples(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Sample `index` of a training, the same whenever and wherever it is drawn."""

    def __init__(self, pool: Pool, options: TrainOptions, first: int) -> None:
        self.pool, self.options, self.first = pool, options, first

    def __len__(self) -> int:
        return self.options.steps * self.options.batch - self.first

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.options.seed, 7, self.first + index])
        chosen = int(rng.integers(len(self.pool)))
        fractions = torch.from_numpy(self.pool.fractions[chosen]).float() / 255.0
        images = draw_images(fractions, rng, self.options.missing_second_image)
        target = torch.cat([1.0 - fractions[:6].sum(0, keepdim=True), fractions[:6]])
        size = self.options.patch
        start = [
            int(np.clip((n - size) // 2 + rng.integers(-4, 5), 0, n - size)) for n in CROP_SHAPE
        ]
        patch = (slice(None), *(slice(s, s + size) for s in start))
        points = torch.from_numpy(self.pool.landmarks[chosen] - np.array(start, np.float32))
        return images[patch], target[patch], points


def soft_dice_loss(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One minus the Dice of volume fractions, mean over samples and foreground classes.

    With fractions in place of labels, as in Milletari et al., 3DV 2016, eq. 3.
    """
    p, t = probabilities[:, 1:].flatten(2), target[:, 1:].flatten(2)
    overlap = 2.0 * torch.minimum(p, t).sum(2)
    return (1.0 - (overlap + 1.0) / (p.sum(2) + t.sum(2) + 1.0)).mean()


def ratio_loss(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean error of the EH volume ratio of the organs and of the labyrinth."""
    return (_ratios(probabilities) - _ratios(target)).abs().mean()


def _ratios(fractions: torch.Tensor) -> torch.Tensor:
    """EH volume ratios (batch, 4); twenty voxels more keep an organ outside the patch harmless."""
    volumes = fractions.flatten(2).sum(2)
    endolymph, perilymph = volumes[:, 2::2], volumes[:, 1::2]
    endolymph = torch.cat([endolymph, endolymph.sum(1, keepdim=True)], dim=1)
    perilymph = torch.cat([perilymph, perilymph.sum(1, keepdim=True)], dim=1)
    return endolymph / (endolymph + perilymph + 20.0)


def landmark_loss(logits: torch.Tensor, points: torch.Tensor, sigma: float = 1.2) -> torch.Tensor:
    """Cross entropy of the spatial softmax against a Gaussian of `sigma` voxels.

    Landmarks outside the patch do not count.
    """
    shape = logits.shape[2:]
    axes = [torch.arange(n, device=logits.device, dtype=torch.float32) for n in shape]
    profiles = [
        torch.exp(-0.5 * ((axis - points[..., k, None]) / sigma) ** 2)
        for k, axis in enumerate(axes)
    ]
    heat = torch.einsum("blx,bly,blz->blxyz", *profiles).flatten(2)
    size = torch.tensor(shape, device=logits.device)
    inside = ((points > 1) & (points < size - 2)).all(-1)
    heat = heat / heat.sum(2, keepdim=True).clamp_min(1e-6)
    entropy = -(heat * torch.log_softmax(logits.flatten(2), dim=2)).sum(2)
    return (entropy * inside).sum() / inside.sum().clamp_min(1)


def train(
    options: TrainOptions,
    specimens_folder: Path,
    folder: Path,
    device: str = "cpu",
    threads: int = 2,
) -> Path:
    """Train, or go on from the last checkpoint in `folder`, and leave `weights.pt` there.

    Returns
    -------
    The file of weights: the running mean of the last steps (exponential, decay 0.999).
    """
    torch.manual_seed(options.seed)
    pool, validation = make_pools(options, specimens_folder, folder / "pool", threads)
    torch.set_num_threads(threads)
    where = torch.device(device)
    network = DualHeadUNet(options.network).to(where)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    mean = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )
    optimiser = torch.optim.AdamW(
        network.parameters(), options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, total_steps=options.steps, pct_start=0.1
    )
    checkpoint = folder / "checkpoint.pt"
    history: list[dict[str, float]] = []
    step = 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=where, weights_only=True)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        history, step = state["history"], state["step"]
        LOG.info("going on from step %d", step)
    loader = torch.utils.data.DataLoader(
        _Samples(pool, options, step * options.batch),
        batch_size=options.batch,
        num_workers=max(1, threads - 1),
        prefetch_factor=4,
    )
    network.train()
    running: list[list[float]] = []
    for images, target, points in loader:
        images = images.to(where, memory_format=torch.channels_last_3d)
        target, points = target.to(where), points.to(where)
        with torch.autocast(where.type, torch.bfloat16):
            logits, heat = network(images)
        logits, heat = logits.float(), heat.float()
        probabilities = torch.softmax(logits, dim=1)
        entropy = -(target * torch.log_softmax(logits, dim=1)).sum(1).mean()
        parts = [
            entropy,
            soft_dice_loss(probabilities, target),
            ratio_loss(probabilities, target),
            landmark_loss(heat, points),
        ]
        loss = torch.stack(parts) @ torch.tensor(LOSS_WEIGHTS, device=where)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        mean.update_parameters(network)
        running.append([float(part.detach()) for part in parts])
        step += 1
        if step % 100 == 0:
            recent = np.mean(running[-100:], axis=0)
            LOG.info(
                "step %d of %d: entropy %.4f dice %.3f ratio %.3f landmarks %.2f",
                step,
                options.steps,
                *recent,
            )
        if step % options.validate_every == 0 or step == options.steps:
            scores = validate(mean.module, validation, where)
            terms = np.mean(running, axis=0)
            running = []
            history.append({"step": step, "loss": float(terms @ LOSS_WEIGHTS), **scores})
            LOG.info("validation at step %d: %s", step, json.dumps(scores))
            _save(
                {
                    "network": network.state_dict(),
                    "mean": mean.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "history": history,
                    "step": step,
                },
                checkpoint,
            )
            write_history(history, folder)
            network.train()
    weights = folder / "weights.pt"
    _save(mean.module.state_dict(), weights)
    return weights


@torch.no_grad()
def validate(network: torch.nn.Module, pool: Pool, where: torch.device) -> dict[str, float]:
    """Scores on whole crops: Dice of majority labels, ratio error and bias, landmark error."""
    network.eval()
    rows = []
    for index in range(len(pool)):
        fractions = torch.from_numpy(pool.fractions[index]).float() / 255.0
        images = draw_images(fractions, np.random.default_rng([11, index]), missing=0.0)
        with torch.autocast(where.type, torch.bfloat16):
            logits, heat = network(images[None].to(where))
        probabilities = torch.softmax(logits[0].float().cpu(), dim=0)
        target = fractions[:6]
        positions, _ = landmark_positions(heat[0].float().cpu())
        truth = torch.from_numpy(pool.landmarks[index])
        error = torch.linalg.vector_norm(positions - truth, dim=1) * CROP_SPACING_MM
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


def write_history(history: Sequence[dict[str, float]], folder: Path) -> None:
    """Write the course of a training as a table and as a picture."""
    import pandas as pd
    from matplotlib.figure import Figure

    table = pd.DataFrame(history)
    table.to_csv(folder / "history.tsv", sep="\t", index=False)
    figure = Figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    shown = ("loss", "tfs_dice", "els_dice", "ratio_mae", "ratio_bias", "landmark_mm")
    for panel, column in zip(panels, shown):
        panel.plot(table.step, table[column], marker=".", color="#0072b2")
        panel.set(title=column, xlabel="step")
        panel.grid(alpha=0.3)
    figure.savefig(folder / "history.png", dpi=100)


def _save(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def describe(options: TrainOptions) -> dict[str, Any]:
    """The options as plain data, for a bundle's metadata."""
    return {**asdict(options), "labels": list(LABELS), "landmarks": list(LANDMARKS)}

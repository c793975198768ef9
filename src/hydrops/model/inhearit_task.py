"""Training of INHEARIT on slices of simulated crops, selected ones first (Cho et al. 2020).

The paper's curriculum: at first the slices on which a person measured, here the representative
ones of either organ, then these and all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from hydrops.errors import HydropsError
from hydrops.labels import ORGANS, SIDES
from hydrops.model.architectures import build_network, fast_layout
from hydrops.model.course import Phase
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.inhearit import (
    FIELD,
    FRONTS,
    SLICE_CLASSES,
    SLICE_ORGANS,
    Inhearit,
    in_field,
    slice_triple,
)
from hydrops.model.losses import soft_cross_entropy, soft_dice_loss
from hydrops.model.metrics import overlap_metrics
from hydrops.model.precision import mixed_precision
from hydrops.model.simulate import Pool, draw_images, onto_crop
from hydrops.slices import representative_slice

if TYPE_CHECKING:
    from hydrops.model.train import TrainOptions

#: Farthest that a crop is moved in the field, pixels (Cho et al. 2020), and the largest relative
#: change of brightness, which the paper does not give.
SHIFT, BRIGHTNESS = 8, 0.2


class _Slices(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Sample `index` of what is left of a phase, the same whenever and wherever it is drawn."""

    def __init__(
        self, pool: Pool, options: TrainOptions, phase: Phase, part: tuple[int, int]
    ) -> None:
        self.pool, self.options, self.phase = pool, options, phase
        self.first, self.last = part

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.options.seed, 17, self.first + index])
        chosen = int(rng.integers(len(self.pool)))
        fine = self.pool.shares(chosen)
        mrc = draw_images(fine, rng, self.options.missing_second_image, self.phase.spread)[0]
        volumes, _ = onto_crop(fine, self.pool.landmarks[chosen])
        selected = rng.random() < self.phase.selected
        slices = selected_slices(volumes.numpy()) if selected else range(mrc.shape[-1])
        return draw_sample(mrc, volumes, int(rng.choice(slices)), SIDES[int(rng.integers(2))], rng)


def selected_slices(fractions: npt.NDArray[np.float32]) -> list[int]:
    """Representative slices of a crop's cochlea and vestibule.

    Parameters
    ----------
    fractions
        (10, x, y, z) volume fractions of a `hydrops.model.simulate.Pool`, on the crop grid.
    """
    fluid = fractions[:6:2] + fractions[1:6:2]
    found = [representative_slice(organ, fluid, CROP_SPACING_MM[:2]) for organ in SLICE_ORGANS]
    return [z for z in found if z is not None]


def draw_sample(
    mrc: torch.Tensor, fractions: torch.Tensor, z: int, side: str, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One sample: three slices in a field (3, n, n), and the middle one's classes (5, n, n).

    Parameters
    ----------
    mrc, fractions
        (x, y, z) and (10, x, y, z) of a right ear; mirrored, it is a left one.
    """
    shift = (int(rng.integers(-SHIFT, SHIFT + 1)), int(rng.integers(-SHIFT, SHIFT + 1)))
    slices, target = slice_triple(mrc, z), class_fractions(fractions[..., z], side)
    if side == "left":
        slices = slices.flip(-2)
    slices = slices * (1.0 + float(rng.uniform(-BRIGHTNESS, BRIGHTNESS)))
    target = in_field(target, shift)
    return in_field(slices, shift), torch.cat([1.0 - target.sum(0, keepdim=True), target])


def class_fractions(fractions: torch.Tensor, side: str) -> torch.Tensor:
    """Fractions (4, x, ...) of `SLICE_CLASSES` in a right ear (10, x, ...), mirrored if `left`."""
    target = torch.zeros(len(SLICE_CLASSES), *fractions.shape[1:])
    for number, (its_side, organ) in enumerate(SLICE_CLASSES):
        if its_side == side:
            perilymph = 2 * ORGANS.index(organ)
            target[number] = fractions[perilymph : perilymph + 2].sum(0)
    return target.flip(1) if side == "left" else target


class SliceTask:
    """Cochlea and vestibule of either side on slices; a `hydrops.model.course.Task`.

    Raises
    ------
    HydropsError
        If the configuration has another patch than the field that the fronts see.
    """

    def __init__(self, options: TrainOptions, pool: Pool, validation: Pool) -> None:
        if options.patch != (FIELD, FIELD, FRONTS):
            raise HydropsError(
                f"{options.name}: patch: {list(options.patch)}: its {FRONTS} fronts see "
                f"[{FIELD}, {FIELD}, {FRONTS}], and nothing else"
            )
        self.options, self.pool, self.validation = options, pool, validation
        torch.manual_seed(options.seed)
        self.network = fast_layout(build_network(options.network))

    def samples(self, phase: Phase, first: int, last: int) -> _Slices:
        """Samples `first` to `last` of the training."""
        return _Slices(self.pool, self.options, phase, (first, last))

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross entropy and Dice of the middle slices."""
        slices, target = batch
        assert isinstance(network, Inhearit)
        with mixed_precision(slices.device):
            logits = network.by_slice(slices)
        logits = logits.float()
        parts = {
            "entropy": soft_cross_entropy(logits, target),
            "dice": soft_dice_loss(torch.softmax(logits, dim=1), target),
        }
        loss = phase.overlap(parts["entropy"], parts["dice"])
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    def validate(self, network: torch.nn.Module, phase: Phase) -> dict[str, float]:
        """Dice and Jaccard of each organ on whole crops of ears not trained on, of either side."""
        where = next(network.parameters()).device
        rows = []
        for index in range(len(self.validation)):
            rng, side = np.random.default_rng([11, index]), SIDES[index % 2]
            fractions = self.validation.shares(index)
            mrc = draw_images(fractions, rng, 1.0, phase.spread)[:1]
            fractions, _ = onto_crop(fractions, self.validation.landmarks[index])
            mrc = mrc.flip(1) if side == "left" else mrc
            with mixed_precision(where):
                logits, _ = network(mrc[None].to(where))
            found = (logits[0].argmax(0) - 1).cpu().numpy()
            truth = class_fractions(fractions, side).numpy() > 0.5
            row: dict[str, float] = {}
            for number, (its_side, organ) in enumerate(SLICE_CLASSES):
                if its_side == side:
                    scores = overlap_metrics(found == number, truth[number])
                    row |= {f"{organ}_{name}": scores[name] for name in ("dice", "jaccard")}
            rows.append(row)
        return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}

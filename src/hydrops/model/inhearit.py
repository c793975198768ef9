"""INHEARIT: cochlea and vestibule of a known side on slices of MRC (Cho et al. 2020).

Three consecutive slices go into three VGG-19 fronts, three transposed convolutions with two skip
connections bring what they found back to the pixels of the middle slice. The paper's numbers:
fields of 100 x 100 pixels, fronts of 15 convolutions, dropout 0.6.

What the paper leaves open is read as in the network that such a decoder is of (fully convolutional
network of stride 8, Long et al., CVPR 2015, section 4.2): the fronts end in front of VGG-19's last
convolution, the three further convolutions are its 7 x 7, 1 x 1 and 1 x 1 ones, and the skips come
from the third and fourth pooling, of the middle slice's front. What differs from the paper: fewer
features, and weights that start from He's initialisation in place of those of photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from hydrops.errors import HydropsError
from hydrops.labels import LABELS, SIDES, perilymph_code
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.network import NetworkOptions

Fusion = Literal["3into3", "concat3into1"]
#: Organs that it knows, and its classes beside the background, in their order.
SLICE_ORGANS = ("cochlea", "vestibule")
SLICE_CLASSES = tuple((side, organ) for side in SIDES for organ in SLICE_ORGANS)
#: Convolutions of each level of VGG-19 (Simonyan and Zisserman, ICLR 2015, table 1, E), less one.
CONVOLUTIONS = (2, 2, 4, 4, 3)
#: Share of features that are dropped after the first two further convolutions (Cho et al. 2020).
DROPOUT = 0.6
#: Edge of the field that a front sees, pixels of the crop (Cho et al. 2020).
FIELD = 100
#: Consecutive slices that are seen together, each by a front of its own (Cho et al. 2020).
FRONTS = 3
#: Distance of consecutive slices, as they are acquired, mm.
SLICE_MM = 1.0


class Front(torch.nn.Module):
    """VGG-19 on one slice: (n, 1, x, y) in, what its third, fourth and fifth pooling give out."""

    def __init__(self, features: Sequence[int]) -> None:
        super().__init__()
        self.levels = torch.nn.ModuleList()
        before = 1
        for width, count in zip(features, CONVOLUTIONS, strict=True):
            layers: list[torch.nn.Module] = []
            for _ in range(count):
                layers += [_convolution(before, width, 3), torch.nn.ReLU(inplace=True)]
                before = width
            layers.append(torch.nn.MaxPool2d(2, ceil_mode=True))
            self.levels.append(torch.nn.Sequential(*layers))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = []
        for level in self.levels:
            images = level(images)
            found.append(images)
        return found[2], found[3], found[4]


class Inhearit(torch.nn.Module):
    """Three fronts, their fusion and the way back to pixels.

    ``3into3``: each front has three further convolutions of its own, and their sums go on.
    ``concat3into1``: what the fronts found is concatenated and goes through one set of them.

    `channels` of the options are the features of VGG-19's five levels and those of the further
    convolutions (64, 128, 256, 512, 512 and 4096 in the paper).

    Raises
    ------
    HydropsError
        If there are not six numbers of features, or the classes are not background and
        `SLICE_CLASSES`.
    """

    def __init__(self, options: NetworkOptions, fusion: Fusion) -> None:
        super().__init__()
        if len(options.channels) != len(CONVOLUTIONS) + 1:
            raise HydropsError("channels: VGG-19 has five levels, and a sixth number is needed")
        if options.labels != 1 + len(SLICE_CLASSES):
            raise HydropsError(f"labels: the classes of both sides are {1 + len(SLICE_CLASSES)}")
        *features, further = options.channels
        self.fusion = fusion
        self.fronts = torch.nn.ModuleList(Front(features) for _ in range(FRONTS))
        inputs = [features[-1]] * FRONTS if fusion == "3into3" else [FRONTS * features[-1]]
        self.further = torch.nn.ModuleList(
            _further_convolutions(width, further, options.labels) for width in inputs
        )
        self.up = torch.nn.ModuleList(
            [
                torch.nn.ConvTranspose2d(options.labels, features[3], 4, stride=2, padding=1),
                torch.nn.ConvTranspose2d(features[3], features[2], 4, stride=2, padding=1),
                torch.nn.ConvTranspose2d(features[2], options.labels, 16, stride=8, padding=4),
            ]
        )

    def by_slice(self, triples: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes, x, y) of the middle ones of consecutive slices (n, 3, x, y)."""
        found = [front(triples[:, place : place + 1]) for place, front in enumerate(self.fronts)]
        deepest = [levels[-1] for levels in found]
        if self.fusion == "3into3":
            scores = sum(part(deep) for part, deep in zip(self.further, deepest, strict=True))
        else:
            scores = self.further[0](torch.cat(deepest, dim=1))
        third, fourth, _ = found[1]
        scores = _grown(self.up[0], scores, fourth) + fourth
        scores = _grown(self.up[1], scores, third) + third
        return _grown(self.up[2], scores, triples)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Logits (batch, classes, x, y, z) of every slice; images are as other networks get them.

        Of (batch, channels, x, y, z) it sees the first channel, MRC; landmarks it has none.
        """
        mrc = images[:, 0]
        every = [slice_triple(mrc, z) for z in range(mrc.shape[-1])]
        triples = in_field(torch.stack(every, dim=1).flatten(0, 1))
        logits = out_of_field(self.by_slice(triples), mrc.shape[1:3])
        return logits.unflatten(0, (len(mrc), len(every))).movedim(1, -1), None


def _convolution(inputs: int, outputs: int, width: int) -> torch.nn.Module:
    """A convolution that keeps the size and, before a ReLU, the variance of what goes through it.

    He et al., ICCV 2015, section 2.2: without it 15 convolutions in a row learn nothing.
    """
    made = torch.nn.Conv2d(inputs, outputs, width, padding=width // 2)
    torch.nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    torch.nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made


def _further_convolutions(inputs: int, features: int, labels: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        _convolution(inputs, features, 7),
        torch.nn.ReLU(inplace=True),
        torch.nn.Dropout(DROPOUT),
        _convolution(features, features, 1),
        torch.nn.ReLU(inplace=True),
        torch.nn.Dropout(DROPOUT),
        torch.nn.Conv2d(features, labels, 1),
    )


def _grown(up: torch.nn.Module, scores: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Scores enlarged to the size of another tensor; pooling rounded sizes up, so cut the rest."""
    grown: torch.Tensor = up(scores)
    return grown[..., : like.shape[-2], : like.shape[-1]]


def slice_triple(volume: torch.Tensor, z: int) -> torch.Tensor:
    """A slice (..., 3, x, y) of a crop (..., x, y, z) between the two that are `SLICE_MM` away.

    Beyond the crop the outermost slice is repeated.
    """
    step = round(SLICE_MM / CROP_SPACING_MM[2])
    places = [min(max(z + by, 0), volume.shape[-1] - 1) for by in (-step, 0, step)]
    return volume[..., places].movedim(-1, -3)


def in_field(slices: torch.Tensor, shift: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Slices (..., x, y) in the middle of an empty field, or `shift` pixels from it.

    A crop is smaller than the paper's field, whose rest stays zero.
    """
    (left, right), (below, above) = (
        _margins(size, by) for size, by in zip(slices.shape[-2:], shift, strict=True)
    )
    return torch.nn.functional.pad(slices, (below, above, left, right))


def out_of_field(slices: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """What `in_field` put in the middle of a field."""
    (left, _), (below, _) = (_margins(n, 0) for n in size)
    return slices[..., left : left + size[0], below : below + size[1]]


def _margins(size: int, shift: int) -> tuple[int, int]:
    spare = FIELD - size
    before = min(max(spare // 2 + shift, 0), spare)
    return before, spare - before


def fractions_of_side(probabilities: npt.NDArray[np.float32], side: str) -> npt.NDArray[np.float32]:
    """Volume fractions (7, ...) of `hydrops.labels.LABELS` of one side's organs.

    All fluid counts as perilymph; what it takes for the other side's organs is background.

    Parameters
    ----------
    probabilities
        (5, ...) of background and `SLICE_CLASSES`.
    """
    fractions = np.zeros((len(LABELS), *probabilities.shape[1:]), np.float32)
    for number, (its_side, organ) in enumerate(SLICE_CLASSES, start=1):
        if its_side == side:
            fractions[perilymph_code(organ)] = probabilities[number]
    fractions[0] = 1.0 - fractions[1:].sum(0)
    return fractions

"""How unlike the images of its training an ear is, so that a model can refuse what it never saw.

A CT given to an MR model, a T1-weighted image or one smeared by motion are segmented somehow, and
the result looks like a measurement. Six figures say how image and result go together; an ear is
refused when their Mahalanobis distance (Lee et al., NeurIPS 2018, there of a network's features)
from those of simulated ears of the training is clearly larger than nearly all of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from hydrops.arrays import FloatGrid
from hydrops.images import box_around, grown

Vector = npt.NDArray[np.float64]

#: What is looked at, in words for a person, in the order of `ear_features`.
FEATURES = (
    "brightness of the fluid beside the bone around it",
    "unevenness of the fluid",
    "agreement of brightness with the share of fluid",
    "uncertainty of the network",
    "confidence in the landmarks",
    "volume of the labyrinth",
)
#: Where each of them is strange: below what is known, above it, or on either side. A scan that is
#: cleaner than those of the training is no reason to refuse it.
STRANGE = np.array([-1, 1, -1, 1, -1, 0])
#: Share of a voxel above which there is fluid in it.
TRACE = 0.05
#: Voxels from the fluid at which nothing but bone is expected.
SHELL_VOXELS = (2, 3)
#: Share of the simulated ears whose distance is taken for usual, and the limit as a multiple of the
#: largest usual one: scanners differ by more than what is simulated. For paired_unet3d the real ear
#: lies just beyond the usual, and other contrasts, motion and CT at more than twice that.
KEPT = 0.995
MARGIN = 1.5
#: Weight of the diagonal in the covariance, which few ears determine poorly.
SHRINKAGE = 0.1
#: Variance of what is the same for all ears, as the confidence of a model without landmarks is.
LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Novelty:
    """Mean (n,), inverse covariance (n, n) and largest distance of what a model knows."""

    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: float

    def distance(self, features: Vector) -> float:
        """Mahalanobis distance of an ear from what the model knows, where that is strange."""
        apart = self._apart(features)
        return float(np.sqrt(apart @ np.array(self.precision) @ apart))

    def strangest(self, features: Vector) -> str:
        """The feature that lies farthest out, each for itself, in words."""
        spread = np.sqrt(np.diag(np.linalg.inv(np.array(self.precision))))
        return FEATURES[int(np.argmax(np.abs(self._apart(features)) / spread))]

    def _apart(self, features: Vector) -> Vector:
        """How far features lie from the mean; zero on the side that is not strange."""
        apart = features - np.array(self.mean)
        return np.where(STRANGE * apart < 0, 0.0, apart)

    @staticmethod
    def fit(features: Sequence[Vector]) -> Novelty:
        """From the features of simulated ears; the limit is `MARGIN` times that of `KEPT` of them.

        Raises
        ------
        ValueError
            If there are too few ears for such a limit.
        """
        table = np.array(features)
        rank = int(np.ceil(KEPT * (len(table) + 1)))
        if rank > len(table):
            raise ValueError(f"{len(table)} ears are too few for a limit that {KEPT:.1%} keep")
        mean, covariance = table.mean(0), np.cov(table.T)
        variances = np.diag(covariance) + LEAST_VARIANCE
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(variances)
        precision = np.linalg.inv(shrunk)
        known = Novelty(tuple(mean.tolist()), tuple(map(tuple, precision.tolist())), np.inf)
        distances = np.sort([known.distance(row) for row in table])
        return Novelty(known.mean, known.precision, MARGIN * float(distances[rank - 1]))


def ear_features(
    mrc: FloatGrid, fractions: FloatGrid, confidences: FloatGrid, uncertainty: float
) -> Vector:
    """The figures of `FEATURES`, each on a scale on which they spread evenly.

    Parameters
    ----------
    mrc
        (x, y, z) as `hydrops.model.preprocess.prepare` scales it: fluid about one.
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`, of which some are fluid.
    confidences
        Of the landmarks, 0 to 1; may be empty.
    uncertainty
        Mean entropy in the fluid as a share of its maximum.
    """
    part = box_around(fractions[0] < 1.0 - TRACE, (max(SHELL_VOXELS),) * 3)
    mrc, fluid = mrc[part], fractions[1:, *part].sum(0)
    core = fluid > 0.9 * fluid.max()
    near, far = (grown(fluid > TRACE, steps) for steps in SHELL_VOXELS)
    shell = far & ~near
    inside = max(float(mrc[core].mean()), 1e-3)
    around = max(float(np.median(mrc[shell])), 1e-3) if shell.any() else inside
    agreement = _correlation(mrc[near], fluid[near])
    sure = float(np.mean(confidences)) if len(confidences) else 0.5
    return np.array(
        [
            np.log(inside / around),
            np.log(float(mrc[core].std()) / inside + 1e-3),
            np.arctanh(np.clip(agreement, -0.999, 0.999)),
            np.log(uncertainty + 1e-3),
            logit(np.clip(sure, 1e-3, 1 - 1e-3)),
            np.log(float(fluid.sum()) + 1.0),
        ]
    )


def _correlation(a: FloatGrid, b: FloatGrid) -> float:
    """Pearson's, zero where one of the two is the same everywhere."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0

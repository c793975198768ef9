"""Every MR network keeps the contract: images in, compartments and perhaps landmarks out."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrops.errors import HydropsError
from hydrops.labels import LABELS
from hydrops.model.architectures import ARCHITECTURES, build_network, plan_network
from hydrops.model.course import Phase
from hydrops.model.geometry import CROP_SHAPE
from hydrops.model.network import NetworkOptions, folded, unet, unfolded
from hydrops.model.package import write_bundle
from hydrops.model.segmenter import load_segmenter, segment_ear
from hydrops.model.simulate import Pool
from hydrops.model.taught import write_taught
from hydrops.model.train import PairedTask, TrainOptions
from places import REPOSITORY

CONFIGURATIONS = REPOSITORY / "config" / "models"
NAMES = ("paired_unet3d", "joint_unet3d", "single_unet3d", "unet2d", "dynunet")
WITH_LANDMARKS = ("paired_unet3d", "joint_unet3d")


class Sure(torch.nn.Module):
    """A network that has learned one thing: bright is perilymph, dark is not."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits, heat = self.network(images)
        logits = 0.01 * torch.tanh(logits)
        logits[:, 1] += torch.where(images[:, 0] > 0.5, 20.0, -20.0)
        logits[:, 0] += torch.where(images[:, 0] > 0.5, -20.0, 20.0)
        return logits, heat


def small(name: str) -> TrainOptions:
    options = TrainOptions.load(CONFIGURATIONS / f"{name}.yaml")
    network = dataclasses.replace(options.network, channels=(4, 8, 16, 16), residual_units=0)
    return dataclasses.replace(options, network=network, patch=(32, 32, 16))


def test_each_architecture_is_somebodys() -> None:
    used = {small(name).network.architecture for name in NAMES}
    on_slices = TrainOptions.load(CONFIGURATIONS / "inhearit.yaml").network.architecture
    assert used | {on_slices, "concat3into1", "apart"} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_gives_every_class(name: str) -> None:
    network = build_network(small(name).network).eval()
    logits, heat = network(torch.randn(2, 3, 32, 32, 32))
    assert logits.shape == (2, len(LABELS), 32, 32, 32)
    assert (heat is not None) == (name in WITH_LANDMARKS)
    assert torch.isfinite(logits).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=2, max_size=3))
def test_folding_loses_nothing_and_keeps_blocks_together(axes: list[tuple[int, int]]) -> None:
    fold, counts = [f for f, _ in axes], [n for _, n in axes]
    images = torch.randn(2, 3, *(f * n for f, n in axes))
    blocks = folded(images, fold)
    assert blocks.shape == (2, 3 * math.prod(fold), *counts)
    first = images[(slice(None), slice(None), *(slice(0, f) for f in fold))]
    corner = blocks[(..., *[0] * len(fold))]
    assert torch.equal(corner.sort().values, first.flatten(1).sort().values)
    assert torch.equal(unfolded(blocks, fold), images)


def test_slices_do_not_see_each_other() -> None:
    network = build_network(small("unet2d").network).eval()
    images = torch.randn(1, 3, 16, 16, 16)
    changed = images.clone()
    changed[..., 5] += 1.0
    same = (network(images)[0] == network(changed)[0]).all(1)[0].all((0, 1))
    assert same.tolist() == [z != 5 for z in range(16)]


def test_single_networks_see_their_own_image_only() -> None:
    network = build_network(small("single_unet3d").network).eval()
    images = torch.randn(1, 3, 16, 16, 16)
    other = images.clone()
    other[:, 1:] = torch.randn(1, 2, 16, 16, 16)
    first, second = (torch.softmax(network(i)[0], 1) for i in (images, other))
    fluid = [p[:, 1::2] + p[:, 2::2] for p in (first, second)]
    assert torch.allclose(fluid[0], fluid[1], atol=1e-5)
    assert not torch.allclose(first, second, atol=1e-3)


def test_the_plan_follows_the_voxels() -> None:
    even = plan_network((64, 64, 64), (0.5, 0.5, 0.5))
    assert even.strides == ((1, 1, 1), *[(2, 2, 2)] * 4)
    assert even.features == (32, 64, 128, 256, 320)
    for depth_mm in (1.5, 1.0):
        flat = plan_network((64, 64, 24), (0.5, 0.5, depth_mm))
        assert flat.kernels[0] == (3, 3, 1)
        assert flat.strides[1] == (2, 2, 1)
        assert (2, 2, 2) in flat.strides
        # Once an axis' voxels are near the finest its kernels are wide, and stay so to the bottom.
        assert flat.kernels[1:] == ((3, 3, 3),) * (len(flat.kernels) - 1)
    # Eight voxels along the only axis that is left are not worth a level.
    assert len(plan_network((64, 4), (1.0, 1.0)).strides) == 4
    with pytest.raises(HydropsError, match="too small"):
        plan_network((4, 4, 4), (1.0, 1.0, 1.0))


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(HydropsError, match="none of: dual"):
        build_network(NetworkOptions(architecture="transformer"))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_and_a_bundle(name: str, tmp_path: Path) -> None:
    options = small(name)
    rng = np.random.default_rng(0)
    fractions = np.zeros((1, 10, 64, 64, 64), np.uint8)
    for channel in range(6):
        start = 20 + 4 * channel
        fractions[0, channel, start : start + 4, 24:40, 24:40] = 255
    pool = Pool(fractions, np.full((1, 3, 3), 32.0, np.float32))
    task = PairedTask(options, pool, pool)
    phase = Phase(1, 1e-3, 0.3, 1.0)
    batch = [part[None] for part in task.samples(phase, 0, 1)[0]]
    loss, parts = task.loss(task.network, batch, phase)
    loss.backward()
    assert np.isfinite(parts["loss" if "loss" in parts else "entropy"])
    assert all(p.grad is not None for p in task.network.parameters() if p.requires_grad)
    weights = tmp_path / "weights.pt"
    torch.save(task.network.state_dict(), weights)
    write_taught(weights, {})
    bundle = write_bundle(options, weights, tmp_path / "models")
    assert bundle.metadata["landmarks"] == ([] if name not in WITH_LANDMARKS else [
        "helicotrema", "oval_window", "round_window"])  # fmt: skip
    segmenter = load_segmenter(bundle.folder, "cpu", 1)
    sure = dataclasses.replace(segmenter, network=Sure(segmenter.network))
    mrc = np.zeros(CROP_SHAPE, np.float32)
    mrc[20:44, 24:40, 12:20] = 1.0 + 0.01 * rng.standard_normal((24, 16, 8))
    mi2 = mrc * np.where(np.arange(64) % 8 < 4, 1.0, -1.0)[:, None, None].astype(np.float32)
    found = segment_ear(sure, mrc, mi2, "left")
    assert np.allclose(found.fractions.sum(0), 1.0, atol=1e-4)
    assert (found.fractions[0] < 0.5).sum() == 24 * 16 * 8
    assert len(found.landmarks) == len(bundle.metadata["landmarks"])
    if not bundle.endolymph:
        again = segment_ear(sure, mrc, mi2, "left", summed=2.0 * np.abs(mi2))
        assert np.array_equal(again.fractions, found.fractions)


def test_the_joint_network_sees_mrc_alone_and_tells_no_endolymph() -> None:
    network = build_network(small("joint_unet3d").network).eval()
    images = torch.randn(1, 3, 16, 16, 16)
    other = images.clone()
    other[:, 1:] = torch.randn(1, 2, 16, 16, 16)
    for first, second in zip(network(images), network(other)):
        assert torch.equal(first, second)
    assert torch.softmax(network(images)[0], 1)[:, 2::2].max() < 1e-6


def test_the_joint_network_learns_the_fluid_however_it_is_shared() -> None:
    options = small("joint_unet3d")
    rng = np.random.default_rng(0)
    fractions = np.zeros((1, 10, 64, 64, 64), np.uint8)
    fractions[0, :6, 20:44, 24:40, 24:40] = rng.integers(0, 40, (6, 24, 16, 16))
    pool = Pool(fractions, np.full((1, 3, 3), 32.0, np.float32))
    task = PairedTask(options, pool, pool)
    phase = options.phases[0]
    images, target, points = (part[None] for part in task.samples(phase, 0, 1)[0])
    shared = target.clone()
    shared[:, 1::2] = shared[:, 2::2] = (target[:, 1::2] + target[:, 2::2]) / 2
    losses = [task.loss(task.network, (images, t, points), phase)[0].item() for t in
              (target, shared)]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    with torch.inference_mode():
        scores = task.validate(task.network, phase)
    assert set(scores) == {"tfs_dice", "tfs_volume_bias", "landmark_mm"}


@pytest.mark.parametrize("excited", [False, True])
def test_excitation_looks_at_the_whole_image(excited: bool) -> None:
    """What lies far off weighs the channels everywhere; without it, a corner is its own."""
    torch.manual_seed(0)
    options = NetworkOptions(channels=(4, 8), residual_units=1, excited=excited)
    network = unet(2, options, 1, 1).eval()
    image = torch.rand(1, 1, 64, 64)
    other = image.clone()
    other[..., 40:, 40:] += 5.0
    with torch.no_grad():
        moved = (network(image) - network(other))[..., :8, :8].abs().max()
    assert (moved > 1e-6) == excited

"""Time an ear costs from crop to volume fractions and landmarks, and where it goes (simulation).

    python benchmarks/speed.py [--ears 24] [--model paired_unet3d] [--threads 2]
                               [--devices cpu cuda]

Draws the crops of phantoms, segments each as the pipeline does, and times its parts: preparing the
channels, the network, and everything after it. One pass of the network is timed once more, in full
precision and over the whole crop, and beside nnU-Net's planned network (MONAI DynUNet, untrained,
features as nnU-Net would choose them), which sees the same crops. Where nnunetv2 is installed, its
own predictor runs on them too, with an untrained network of its own. On a machine with CUDA the
same is done there, transfers included, and beside it what batches are made for: crops go to the
device as they are, and fractions of the mean of both cuts come back. Leaves speed.tsv in
benchmarks/results, which keeps what was measured on another kind of device.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tables import beside_earlier

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
SEED = 8_800_000
#: Published seconds an organ (Cho et al. 2020) and an ear (Ahmadi et al. 2022), other hardware.
PUBLISHED = {"INHEARIT, an organ": 0.168, "IE-Vnet, an ear": 0.2}
#: MRC, HYDROPS-Mi2, and the sum of PPI and PEI times the MRC.
Crop = tuple[np.ndarray, np.ndarray, np.ndarray]
Work = Callable[[list[Crop]], object]
#: Ears that a batch holds, on a processor and on a GPU.
BATCH = {"cpu": 8, "cuda": 32}


def draw_crop(number: int) -> Crop:
    """What the pipeline cuts out of a phantom's left ear, reached by gadolinium."""
    from hydrops.images import crop_affine
    from hydrops.model.geometry import CROP_SHAPE
    from hydrops.phantom.anatomy import draw_ear, draw_hydrops
    from hydrops.phantom.head import draw_head, render
    from hydrops.phantom.signal import MRC, PEI, PERILYMPH_MMOL, PPI

    rng = np.random.default_rng(SEED + number)
    ear = draw_ear(rng, "left", draw_hydrops(rng, float(rng.uniform())))
    head = replace(draw_head(rng, ear, None), gadolinium_mmol={"left": PERILYMPH_MMOL})
    grid = crop_affine(head.to_scanner(head.places["left"]).tolist())
    mrc, ppi, pei = (render(head, s, CROP_SHAPE, grid, rng) for s in (MRC, PPI, PEI))
    return mrc, (ppi - pei) * mrc, (ppi + pei) * mrc


def channels(crops: list[Crop], device: str = "cpu") -> torch.Tensor:
    """What a network sees of crops, (n, 3, x, y, z), made on a device."""
    import torch

    from hydrops.model.preprocess import prepare

    mrc, mi2, _ = (torch.from_numpy(np.stack(images)).to(device) for images in zip(*crops))
    return prepare(mrc, mi2)


def timed(work: Work, crops: list[Crop], size: int) -> np.ndarray:
    """Milliseconds an ear, of each batch of so many crops, after one that only warms up."""
    batches = [crops[first : first + size] for first in range(0, len(crops) - size + 1, size)]
    work(batches[0])
    taken = []
    for batch in batches:
        start = time.perf_counter()
        work(batch)
        taken.append(1000 * (time.perf_counter() - start) / size)
    return np.array(taken)


def processor(device: str) -> str:
    """What a device computes in half precision with: its name, or a processor's instructions."""
    import torch

    from hydrops.model.precision import half_instructions

    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return half_instructions() or "no bfloat16"


def nnunet_predictors(device: str) -> dict[str, Work]:
    """nnU-Net's own predictor, with and without its mirrored passes; nothing if not installed.

    Needs ``pip install nnunetv2==2.8.1``. Network: nnU-Net's plain 3D U-Net, 5 stages of 32 to 320
    features, untrained; as many stages as the crop can be halved in plane.
    """
    try:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    except ImportError:
        print("nnunetv2 is not installed: its predictor is left out", file=sys.stderr)
        return {}
    import torch

    from hydrops.model.geometry import CROP_SHAPE

    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 5, "features_per_stage": [32, 64, 128, 256, 320],
            "conv_op": "torch.nn.Conv3d", "kernel_sizes": [[3, 3, 3]] * 5,
            "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [2] * 5, "n_conv_per_stage_decoder": [2] * 4, "conv_bias": True,
            "norm_op": "torch.nn.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }  # fmt: skip
    ways = {"3d_fullres": {"patch_size": list(CROP_SHAPE), "architecture": architecture}}
    plans = PlansManager({"configurations": ways})
    plan = plans.get_configuration("3d_fullres")
    network = get_network_from_plans(
        plan.network_arch_class_name, plan.network_arch_init_kwargs,
        plan.network_arch_init_kwargs_req_import, 3, 3, deep_supervision=False,
    )  # fmt: skip
    labels = {"labels": {"background": 0, "tfs": 1, "els": 2}}

    def predictor(mirroring: bool) -> Work:
        made = nnUNetPredictor(
            use_mirroring=mirroring, device=torch.device(device), allow_tqdm=False,
            perform_everything_on_device=device != "cpu",
        )  # fmt: skip
        made.manual_initialization(network, plans, plan, None, labels, "", (0, 1, 2))

        def work(crops: list[Crop]) -> object:
            ears = channels(crops)
            return [made.predict_sliding_window_return_logits(ear).cpu() for ear in ears]

        return work

    return {
        "channels, nnU-Net's own predictor": predictor(True),
        "channels, nnU-Net's own predictor, no mirroring": predictor(False),
    }


def measure(model: str, device: str, threads: int, crops: list[Crop]) -> list[dict[str, object]]:
    """Rows of the table for one device."""
    import torch

    from hydrops.model.architectures import build_network, fast_layout
    from hydrops.model.bundle import find_bundle
    from hydrops.model.network import NetworkOptions
    from hydrops.model.segmenter import (
        MIDDLE,
        WHOLE,
        Part,
        load_segmenter,
        mean_of_cuts,
        run_network,
        segment_ear,
    )

    segmenter = load_segmenter(find_bundle(ROOT / "models", model).folder, device, threads)
    planned = fast_layout(
        build_network(NetworkOptions((32, 64, 128, 256, 320), 0, architecture="planned"))
    )
    planned.eval().to(segmenter.device)

    def forward(network: torch.nn.Module, half: bool, part: Part = MIDDLE) -> Work:
        def work(crops: list[Crop]) -> object:
            batch = channels(crops)[:, :, *part]
            batch = batch.to(segmenter.device, memory_format=torch.channels_last_3d)
            with (
                torch.inference_mode(),
                torch.autocast(segmenter.device.type, torch.bfloat16, enabled=half),
            ):
                return network(batch)[0].float().cpu()

        return work

    @torch.inference_mode()
    def both_cuts(crops: list[Crop]) -> object:
        found = mean_of_cuts(segmenter, channels(crops, device)[:, :, *MIDDLE])
        return [part.cpu() for part in found if part is not None]

    once, half = segmenter.network, segmenter.half
    many = min(BATCH[device], len(crops))
    ways: dict[str, Work] = {
        "whole ear": lambda crops: [
            segment_ear(segmenter, mrc, mi2, "left", summed=summed) for mrc, mi2, summed in crops
        ],
        "channels": channels,
        "channels, network, largest piece": lambda crops: [
            run_network(segmenter, ear) for ear in channels(crops)
        ],
        "channels, network once": forward(once, half),
        "channels, network once, full precision": forward(once, False),
        "channels, network once on the whole crop": forward(once, half, WHOLE),
        f"channels, network once, batches of {many}": forward(once, half),
        f"channels on the device, both cuts, batches of {many}": both_cuts,
        "channels, nnU-Net's planned network once": forward(planned, half),
        "channels, nnU-Net's planned network once on the whole crop": forward(planned, half, WHOLE),
        **nnunet_predictors(device),
    }
    rows = []
    for way, work in ways.items():
        taken = timed(work, crops, many if "batches" in way else 1)
        rows.append(
            {
                "device": device, "processor": processor(device), "threads": threads,
                "half": segmenter.half, "what": way,
                "ears": len(crops), "ms_median": np.median(taken), "ms_least": taken.min(),
                "ms_most": taken.max(), "ears_per_s": 1000 / np.median(taken),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )  # fmt: skip
        print(f"{device}: {way}: {np.median(taken):.1f} ms", file=sys.stderr)
    return rows


def main() -> None:
    """Run the benchmark."""
    sys.path.insert(0, str(ROOT / "src"))
    import torch

    from hydrops.cohort import write_table

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ears", type=int, default=24)
    parser.add_argument("--model", default="paired_unet3d")
    parser.add_argument("--threads", type=int, default=2)
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    parser.add_argument("--devices", nargs="+", default=there, choices=there)
    chosen = parser.parse_args()
    with ProcessPoolExecutor() as executor:
        crops = list(executor.map(draw_crop, range(chosen.ears)))
    rows = [row for d in chosen.devices for row in measure(chosen.model, d, chosen.threads, crops)]
    rows += [
        {"device": "as published", "what": what, "ms_median": 1000 * seconds}
        for what, seconds in PUBLISHED.items()
    ]
    table = beside_earlier(pd.DataFrame(rows), RESULTS / "speed.tsv", ["device", "processor"])
    RESULTS.mkdir(exist_ok=True)
    write_table(table.round(2), RESULTS / "speed.tsv")
    print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main()

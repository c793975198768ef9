"""Time an ear costs from crop to volume fractions and landmarks, and where it goes (simulation).

    python benchmarks/speed.py [--ears 24] [--model paired_unet3d] [--threads 2]

Draws the crops of phantoms, segments each as the pipeline does, and times its parts: preparing the
channels, the network, and everything after it. One pass of the network is timed once more, in full
precision and over the whole crop, and beside nnU-Net's planned network (MONAI DynUNet, untrained,
features as nnU-Net would choose them), which sees the same crops. On a machine with CUDA the same
is done there, transfers included. Leaves speed.tsv in benchmarks/results.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
SEED = 8_800_000
#: Published seconds an organ (Cho et al. 2020) and an ear (Ahmadi et al. 2022), other hardware.
PUBLISHED = {"INHEARIT, an organ": 0.168, "IE-Vnet, an ear": 0.2}
Crop = tuple[np.ndarray, np.ndarray]


def draw_crops(count: int) -> list[Crop]:
    """MRC and HYDROPS-Mi2 of phantoms' left ears, all reached by gadolinium, on the crop grid."""
    from hydrops.images import crop_affine
    from hydrops.model.geometry import CROP_SHAPE
    from hydrops.phantom.anatomy import draw_ear, draw_hydrops
    from hydrops.phantom.head import draw_head, render
    from hydrops.phantom.signal import MRC, PEI, PERILYMPH_MMOL, PPI

    crops = []
    for number in range(count):
        rng = np.random.default_rng(SEED + number)
        ear = draw_ear(rng, "left", draw_hydrops(rng, float(rng.uniform())))
        head = replace(draw_head(rng, ear, None), gadolinium_mmol={"left": PERILYMPH_MMOL})
        grid = crop_affine(head.to_scanner(head.places["left"]).tolist())
        mrc, ppi, pei = (render(head, s, CROP_SHAPE, grid, rng) for s in (MRC, PPI, PEI))
        crops.append((mrc, np.asarray((ppi - pei) * mrc, np.float32)))
    return crops


def timed(work: Callable[[Crop], object], crops: list[Crop]) -> np.ndarray:
    """Milliseconds of each crop, after one that only warms up."""
    work(crops[0])
    taken = []
    for crop in crops:
        start = time.perf_counter()
        work(crop)
        taken.append(1000 * (time.perf_counter() - start))
    return np.array(taken)


def measure(model: str, device: str, threads: int, crops: list[Crop]) -> list[dict[str, object]]:
    """Rows of the table for one device."""
    import torch

    from hydrops.model.architectures import build_network, fast_layout
    from hydrops.model.bundle import find_bundle
    from hydrops.model.network import NetworkOptions
    from hydrops.model.preprocess import prepare
    from hydrops.segment import MIDDLE, WHOLE, Part, load_segmenter, run_network, segment_ear

    segmenter = load_segmenter(find_bundle(ROOT / "models", model).folder, device, threads)
    planned = fast_layout(
        build_network(NetworkOptions((32, 64, 128, 256, 320), 0, architecture="planned"))
    )
    planned.eval().to(segmenter.device)

    def channels(crop: Crop) -> torch.Tensor:
        return prepare(torch.from_numpy(crop[0]), torch.from_numpy(crop[1]))

    def forward(
        network: torch.nn.Module, half: bool, part: Part = MIDDLE
    ) -> Callable[[Crop], object]:
        def work(crop: Crop) -> object:
            seen = channels(crop)[:, *part]
            batch = seen[None].to(segmenter.device, memory_format=torch.channels_last_3d)
            with (
                torch.inference_mode(),
                torch.autocast(segmenter.device.type, torch.bfloat16, enabled=half),
            ):
                return network(batch)[0].float().cpu()

        return work

    ways: dict[str, Callable[[Crop], object]] = {
        "whole ear": lambda crop: segment_ear(segmenter, crop[0], crop[1], "left"),
        "channels": channels,
        "channels, network, largest piece": lambda crop: run_network(segmenter, channels(crop)),
        "channels, network once": forward(segmenter.network, segmenter.half),
        "channels, network once, full precision": forward(segmenter.network, False),
        "channels, network once on the whole crop": forward(
            segmenter.network, segmenter.half, WHOLE
        ),
        "channels, nnU-Net's planned network once": forward(planned, segmenter.half),
        "channels, nnU-Net's planned network once on the whole crop": forward(
            planned, segmenter.half, WHOLE
        ),
    }
    rows = []
    for way, work in ways.items():
        taken = timed(work, crops)
        rows.append(
            {
                "device": device, "threads": threads, "half": segmenter.half, "what": way,
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
    chosen = parser.parse_args()
    crops = draw_crops(chosen.ears)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows = [row for d in devices for row in measure(chosen.model, d, chosen.threads, crops)]
    rows += [
        {"device": "as published", "what": what, "ms_median": 1000 * seconds}
        for what, seconds in PUBLISHED.items()
    ]
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    write_table(table.round(2), RESULTS / "speed.tsv")
    print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main()

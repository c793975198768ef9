"""One step of an examination as people script it: a process a step, ANTs with its defaults.

    python benchmarks/by_hand.py register FIXED MOVING OUT
    python benchmarks/by_hand.py hydrops MRC PPI PEI OUT
    python benchmarks/by_hand.py measure MRC HYDROPS_MI2 BUNDLE

`measure` finds the ears and segments them with the library's own functions, so that what differs
is the way the work is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def register(fixed: str, moving: str, out: str) -> None:
    """Rigid registration of the whole heads, as ``ants.registration`` comes."""
    import ants

    head, other = ants.image_read(fixed), ants.image_read(moving)
    done = ants.registration(head, other, type_of_transform="Rigid")
    ants.image_write(done["warpedmovout"], out)


def hydrops(mrc: str, ppi: str, pei: str, out: str) -> None:
    """HYDROPS-Mi2 from registered images."""
    import nibabel as nib

    image = nib.load(mrc)
    difference = nib.load(ppi).get_fdata() - nib.load(pei).get_fdata()
    nib.save(nib.Nifti1Image(difference * image.get_fdata(), image.affine), out)


def measure(mrc: str, mi2: str, bundle: str) -> None:
    """Find, segment and measure both ears."""
    from hydrops.ears import SearchOptions, find_ears
    from hydrops.images import crop_affine, crop_image, load_image
    from hydrops.measure import organ_volumes
    from hydrops.model.segmenter import load_segmenter, segment_ear

    segmenter = load_segmenter(Path(bundle), "cpu", threads=2)
    image, affine = load_image(Path(mrc))
    second, _ = load_image(Path(mi2))
    for side, centre in find_ears(image, affine, SearchOptions()).centres.items():
        grid = crop_affine(centre.tolist(), affine)
        crops = [crop_image(i, affine, grid) for i in (image, second)]
        found = segment_ear(segmenter, crops[0], crops[1], side)
        print(side, organ_volumes(found.fractions, grid))


if __name__ == "__main__":
    steps: dict[str, Callable[..., None]] = {
        "register": register,
        "hydrops": hydrops,
        "measure": measure,
    }
    steps[sys.argv[1]](*sys.argv[2:])

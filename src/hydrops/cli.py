"""The `hydrops` command. Exit codes: 0 done, 1 a mistake that the message names, 2 wrong usage,
130 stopped by the user.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

from hydrops.errors import HydropsError

MODELS_DIR_HELP = "folder of the models; where `models` is not here, that of this project"
MODELS_DIR_HINT = "name the folder of the models by --models-dir"
OUT_OF_MEMORY = "error: out of memory; free some, or cut the image to what matters"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; heavy imports wait until a subcommand needs them."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if getattr(chosen, "every", None) and chosen.page is None:
        parser.error("--every needs --page, the page to write again")
    try:
        chosen.run(chosen)
    except HydropsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        print(OUT_OF_MEMORY, file=sys.stderr)
        return 1
    except RuntimeError as error:
        # So torch tells that there is no memory, on a processor and on a GPU.
        if not any(words in str(error) for words in ("allocate memory", "out of memory")):
            raise
        print(OUT_OF_MEMORY, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("stopped; nothing half-written is left", file=sys.stderr)
        return 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hydrops", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    scan = commands.add_parser("scan", help="list the examinations below a folder of DICOM")
    scan.add_argument("folder", type=Path)
    scan.add_argument("--protocol", type=Path, default=Path("config/protocols/hydrops.yaml"))
    scan.add_argument("--keep", type=Path, help="an earlier table, whose rows stay as they are")
    scan.set_defaults(run=_scan)
    status = commands.add_parser("status", help="where a study stands")
    status.add_argument("--config", type=Path, default=Path("config/config.yaml"))
    status.add_argument("--page", type=Path, help="write a page that refreshes itself, too")
    status.add_argument(
        "--every", type=_seconds, help="write that page again after so many seconds"
    )
    status.set_defaults(run=_status)
    phantom = commands.add_parser("phantom", help="draw a cohort of phantoms as DICOM")
    phantom.add_argument("cohort", type=Path, help="such as config/phantom.yaml")
    phantom.add_argument("folder", type=Path, help="gets dicom/, truth/ and participants.tsv")
    phantom.set_defaults(run=_phantom)
    segment = commands.add_parser("segment", help="segment one case, MR or CT, without a cohort")
    segment.add_argument(
        "images", type=Path, nargs="+", help="MRC, MRC HYDROPS-Mi2, MRC PPI PEI, or a CT; NIfTI"
    )
    segment.add_argument("--model", default="paired_unet3d", help="a name of `hydrops models`")
    segment.add_argument("--output", type=Path, default=Path(), help="folder for the results")
    segment.add_argument("--device", default="cpu", help="cpu or cuda")
    segment.add_argument("--models-dir", type=Path, default=_models_dir(), help=MODELS_DIR_HELP)
    segment.set_defaults(run=_segment)
    models = commands.add_parser("models", help="list the models")
    models.add_argument("--models-dir", type=Path, default=_models_dir(), help=MODELS_DIR_HELP)
    models.set_defaults(run=_models)
    return parser


def _seconds(text: str) -> float:
    """Seconds to wait; as `argparse` wants it, a wrong one is a ValueError."""
    seconds = float(text)
    if not 0 < seconds < inf:
        raise ValueError(text)
    return seconds


def _models_dir() -> Path:
    """`models` where the command runs, else that of the checkout that it is installed from."""
    here = Path("models")
    there = Path(__file__).resolve().parents[2] / "models"
    return here if here.is_dir() or not there.is_dir() else there


def _scan(chosen: argparse.Namespace) -> None:
    from hydrops.participants import read_as_text
    from hydrops.protocol import load_protocol
    from hydrops.scan import scan_to_participants

    kept = None if chosen.keep is None else read_as_text(chosen.keep)
    table, messages = scan_to_participants(chosen.folder, load_protocol(chosen.protocol), kept)
    for message in messages:
        print(message, file=sys.stderr)
    print(table.to_csv(sep="\t", index=False), end="")


def _status(chosen: argparse.Namespace) -> None:
    import time

    from hydrops.config import resolve
    from hydrops.status import present_words, unfinished_lines
    from hydrops.status_page import write_status_page
    from hydrops.validate import load_yaml

    study = resolve(load_yaml(chosen.config, "config"))
    print(present_words(study))
    if chosen.page is None:
        return
    write_status_page(study, chosen.page)
    print(f"page: {chosen.page}")
    while chosen.every and unfinished_lines(study):
        time.sleep(chosen.every)
        write_status_page(study, chosen.page)


def _phantom(chosen: argparse.Namespace) -> None:
    from hydrops.cohort import write_table
    from hydrops.phantom.cohort import participants_table, write_participant
    from hydrops.phantom.specs import load_specs

    specs = load_specs(chosen.cohort)
    for number, spec in enumerate(specs, start=1):
        name = f"sub-{spec.participant_id}"
        print(f"{number} of {len(specs)}: {name}", file=sys.stderr)
        write_participant(spec, chosen.folder / "dicom" / name, chosen.folder / "truth" / name)
    write_table(
        participants_table(specs, chosen.folder / "dicom"), chosen.folder / "participants.tsv"
    )


def _segment(chosen: argparse.Namespace) -> None:
    from hydrops.model.bundle import find_bundle
    from hydrops.single import segment_files

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not chosen.models_dir.is_dir():
        raise HydropsError(f"{chosen.models_dir}: there is no such folder; {MODELS_DIR_HINT}")
    bundle = find_bundle(chosen.models_dir, chosen.model)
    for path in segment_files(chosen.images, bundle, chosen.output, chosen.device):
        print(path)
    if not bundle.metadata["landmarks"]:
        print(f"{bundle.identifier} finds no landmarks: there is no file of them", file=sys.stderr)


def _models(chosen: argparse.Namespace) -> None:
    from hydrops.model.bundle import bundle_folders, read_bundle

    folders = bundle_folders(chosen.models_dir)
    if not folders:
        raise HydropsError(f"{chosen.models_dir}: there are no models; {MODELS_DIR_HINT}")
    for folder in folders:
        try:
            bundle = read_bundle(folder)
        except HydropsError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        print(f"{bundle.identifier}\t{bundle.metadata.get('description', '')}")

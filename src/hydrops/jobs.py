"""What every script of the workflow does around its call of the library."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydrops.errors import HydropsError

#: Before the number of the SLURM job in a log.
SLURM_WORDS = "in SLURM job"


def slurm_job(log: str) -> str:
    """Number of the SLURM job in the text of a log, or nothing."""
    found = re.search(rf" {SLURM_WORDS} (\d+)$", log, re.MULTILINE)
    return found[1] if found else ""


@contextmanager
def logged(log: str) -> Iterator[None]:
    """Write the log of a job; a mistake that a person can mend ends it without a traceback."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=[logging.FileHandler(log, mode="w"), logging.StreamHandler()],
        force=True,
    )
    if slurm := os.environ.get("SLURM_JOB_ID"):
        logging.info("%s %s", SLURM_WORDS, slurm)
    start = time.monotonic()
    try:
        yield
        logging.info("done in %.1f s", time.monotonic() - start)
    except HydropsError as error:
        logging.error("%s", error)
        sys.exit(1)
    except Exception:
        logging.exception("the job failed")
        raise

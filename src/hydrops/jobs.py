"""What every script of the workflow does around its call of the library."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydrops.errors import HydropsError


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

"""Commands of the test cluster, see cluster.sh."""

from __future__ import annotations

import subprocess
from pathlib import Path


def cluster(*arguments: str) -> None:
    """Run cluster.sh; what it says goes to the terminal."""
    subprocess.run([str(Path(__file__).parent / "cluster.sh"), *arguments], check=True)


def command(*words: str) -> str:
    """Output of a SLURM command."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout

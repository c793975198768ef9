"""The two ways in which something can be wrong that is not the program's fault."""

from __future__ import annotations


class HydropsError(Exception):
    """A mistake that a person can mend: the message says which file, what, and what to do."""


class ExcludedError(Exception):
    """A scan, or one ear of it, that cannot be used.

    A stage raises it; `hydrops.records.run_stage` turns it into a record, never into a failure.

    Parameters
    ----------
    reason
        One sentence that a radiographer understands.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

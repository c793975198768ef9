"""The two ways in which something can be wrong that is not the program's fault."""

from __future__ import annotations

from collections.abc import Mapping


class HydropsError(Exception):
    """A mistake that a person can mend: the message says which file, what, and what to do."""


class ExcludedError(Exception):
    """A scan, or one ear of it, that cannot be used.

    A stage raises it; `hydrops.records.run_stage` turns it into a record, never into a failure.

    Parameters
    ----------
    reason
        One sentence that a radiographer understands.
    sides
        Reason by side, where each ear has its own.
    """

    def __init__(self, reason: str, sides: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sides = dict(sides or {})

    @staticmethod
    def of_ears(sides: Mapping[str, str], otherwise: str) -> ExcludedError:
        """Each ear for its own reason; `otherwise` where no ear is left to have one."""
        return ExcludedError("; ".join(sides.values()) or otherwise, sides)

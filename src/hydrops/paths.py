"""One factory for every path that a run writes.

The same methods serve the library, with real identifiers, and the rules, with Snakemake's
wildcards (``participant="{participant}"``), so that no file is named in two places.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: BIDS suffix of each role's image; the inversion-recovery images are heavily T2-weighted FLAIRs.
BIDS_SUFFIX = {"MRC": "T2w", "PPI": "FLAIR", "PEI": "FLAIR", "HYDROPS": "FLAIR"}
#: What a crop of the sum of PPI and PEI times the MRC is called, beside HYDROPS-Mi2, which is that
#: of their difference.
SUM_MI2 = "SUMMi2"
#: BIDS entity of each side.
HEMI = {"left": "L", "right": "R"}


@dataclass(frozen=True)
class Unit:
    """One session of one participant, the unit of work of every stage up to the cohort."""

    participant: str
    session: str

    @property
    def name(self) -> str:
        """BIDS prefix, e.g. ``sub-01_ses-1``."""
        return f"sub-{self.participant}_ses-{self.session}"


@dataclass(frozen=True)
class Paths:
    """Where a run leaves its files, below `root` (the configuration's ``results``)."""

    root: Path

    def unit(self, stage: str, unit: Unit, model: str | None = None) -> Path:
        """Folder of one stage's files of one session; `model` for the stages that have one."""
        base = self.root / stage if model is None else self.root / stage / model
        return base / f"sub-{unit.participant}" / f"ses-{unit.session}"

    def record(self, stage: str, unit: Unit, model: str | None = None) -> Path:
        """Status record of one stage of one session: the token that later stages depend on."""
        return self.unit(stage, unit, model) / "record.json"

    def image(self, unit: Unit, role: str) -> Path:
        """Ingested image of a role (MRC, PPI, PEI, HYDROPS)."""
        name = f"{unit.name}_acq-{role}_{BIDS_SUFFIX[role]}.nii.gz"
        return self.unit("ingest", unit) / "anat" / name

    def sidecar(self, unit: Unit, role: str) -> Path:
        """What is known of an ingested image, JSON."""
        image = self.image(unit, role)
        return image.with_name(image.name.replace(".nii.gz", ".json"))

    def registered(self, unit: Unit, kind: str) -> Path:
        """HYDROPS or HYDROPSMi2 on the grid of the MRC."""
        return self.unit("register", unit) / f"{unit.name}_space-MRC_{kind}.nii.gz"

    def transform(self, unit: Unit, role: str) -> Path:
        """Rigid transform of a role to the MRC, as ITK text (maps MRC points to the role's)."""
        return self.unit("register", unit) / f"{unit.name}_from-{role}_to-MRC_xfm.txt"

    def crop(self, unit: Unit, side: str, kind: str) -> Path:
        """Crop of one ear: `kind` is MRC, HYDROPSMi2 or `SUM_MI2`."""
        return self.unit("locate", unit) / f"{unit.name}_hemi-{HEMI[side]}_{kind}.nii.gz"

    def segmentation(self, unit: Unit, side: str, kind: str, model: str) -> Path:
        """`kind` is dseg (labels), probseg (volume fractions)."""
        return self.unit("segment", unit, model) / f"{unit.name}_hemi-{HEMI[side]}_{kind}.nii.gz"

    def landmarks(self, unit: Unit, side: str, model: str) -> Path:
        """Landmarks of one ear, RAS mm, JSON."""
        folder = self.unit("segment", unit, model)
        return folder / f"{unit.name}_hemi-{HEMI[side]}_landmarks.json"

    def measures(self, unit: Unit, model: str) -> Path:
        """Rows of one session for the cohort's table of ears."""
        return self.unit("measure", unit, model) / f"{unit.name}_ears.tsv"

    def measured_landmarks(self, unit: Unit, model: str) -> Path:
        """Rows of one session for the cohort's table of landmarks."""
        return self.unit("measure", unit, model) / f"{unit.name}_landmarks.tsv"

    def overlay(self, unit: Unit, side: str, model: str) -> Path:
        """Picture of one ear: MRC and HYDROPS-Mi2 with the contours drawn in."""
        return self.unit("draw", unit, model) / f"{unit.name}_hemi-{HEMI[side]}_overlay.png"

    def chunk(self, stage: str, model: str | None, chunk: str) -> Path:
        """Manifest of the sessions that one job of a stage did; `model` as in `unit`."""
        base = self.root / stage if model is None else self.root / stage / model
        return base / "chunks" / f"{chunk}.json"

    def log(self, stage: str, name: str) -> Path:
        """Log of a job; `name` is that of a batch, a model, or a chunk as ``model/chunk``."""
        return self.root / "logs" / stage / f"{name}.log"

    def benchmark(self, stage: str, name: str) -> Path:
        """Time and memory of a job, as Snakemake measures them; named as its log is."""
        return self.benchmarks / stage / f"{name}.tsv"

    @property
    def benchmarks(self) -> Path:
        """Folder of every job's benchmark."""
        return self.root / "benchmarks"

    def log_beside(self, benchmark: Path) -> Path:
        """Log of the job whose benchmark is given."""
        stage, *name = benchmark.relative_to(self.benchmarks).with_suffix("").parts
        return self.log(stage, "/".join(name))

    def cost(self, kind: str) -> Path:
        """What the run cost: `kind` is tsv or html."""
        return self.root / f"cost.{kind}"

    def cohort(self, model: str, name: str) -> Path:
        """A table of the cohort.

        ears.tsv, exclusions.tsv, intervals.tsv, landmarks.tsv or statistics.tsv.
        """
        return self.root / "cohort" / model / name

    def report(self, model: str, name: str) -> Path:
        """report.html and the figures of the cohort."""
        return self.root / "report" / model / name

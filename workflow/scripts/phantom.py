"""Adapter: draw one phantom participant."""

import json
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.phantom.cohort import write_participant
    from hydrops.phantom.specs import spec_from

    write_participant(
        spec_from(json.loads(snakemake.params.spec)),
        Path(snakemake.output.dicom),
        Path(snakemake.output.truth),
    )

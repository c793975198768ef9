# From scanner folders to an endolymphatic hydrops study: includes and targets, nothing else.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        expand(str(PATHS.report("{model}", "report.html")), model=MODELS),
        # Asked for by name, so that a result that was lost is made again.
        expand(
            str(PATHS.chunk("{stage}", None, "{batch}")),
            stage=SHARED_STAGES,
            batch=STUDY.batches,
        ),
        expand(
            str(PATHS.chunk("{stage}", "{model}", "{chunk}")),
            stage=CHUNK_STAGES,
            model=MODELS,
            chunk=STUDY.chunks,
        ),


if STUDY.phantoms:

    include: "workflow/rules/phantom.smk"


include: "workflow/rules/ingest.smk"
include: "workflow/rules/register.smk"
include: "workflow/rules/locate.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/report.smk"


if TRAINING and TRAINING.in_folds:

    include: "workflow/rules/crossval.smk"

elif TRAINING:

    include: "workflow/rules/model.smk"


if ABLATION:

    include: "workflow/rules/ablation.smk"

elif TRAINING:

    rule ablate:
        input:
            no_ablation,


onstart:
    write_status_page(STUDY, PATHS.root / "status.html")


onsuccess:
    say_how_it_went()


onerror:
    for run_log in log:
        cancel_jobs_of_run(Path(run_log))
    say_how_it_went()

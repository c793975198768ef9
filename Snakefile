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


if STUDY.phantoms:

    include: "workflow/rules/phantom.smk"


include: "workflow/rules/ingest.smk"
include: "workflow/rules/register.smk"
include: "workflow/rules/locate.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/report.smk"


if STUDY.config["training"]:

    include: "workflow/rules/model.smk"


onsuccess:
    print(closing_words(STUDY))


onerror:
    print(closing_words(STUDY))

# The cohort's tables and statistics.


rule tabulate_cohort:
    input:
        measured=chunks_of("measure"),
        participants=STUDY.config["participants"],
        reader=STUDY.config["reader_table"] or [],
    output:
        ears=str(PATHS.cohort("{model}", "ears.tsv")),
        exclusions=str(PATHS.cohort("{model}", "exclusions.tsv")),
        landmarks=str(PATHS.cohort("{model}", "landmarks.tsv")),
        intervals=str(PATHS.cohort("{model}", "intervals.tsv")),
        statistics=str(PATHS.cohort("{model}", "statistics.tsv")),
    log:
        log_of("cohort", "{model}"),
    benchmark:
        benchmark_of("cohort", "{model}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=for_cohort(1000, 200),
        runtime=for_cohort(10, 5),
    params:
        root=lambda wc: str(PATHS.root),
        code=stage_digest("cohort", "statistics"),
    script:
        "../scripts/cohort.py"

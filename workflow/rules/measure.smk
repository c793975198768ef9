# Volumes, ratios, slices and grades of each ear.


rule measure_ears:
    input:
        segment=str(PATHS.chunk("segment", "{model}", "{chunk}")),
    output:
        manifest=str(PATHS.chunk("measure", "{model}", "{chunk}")),
    log:
        log_of("measure", "{model}/{chunk}"),
    benchmark:
        benchmark_of("measure", "{model}/{chunk}")
    conda:
        "../../envs/hydrops.yaml"
    threads: 1
    resources:
        mem_mb=at_attempt(1000),
        runtime=minutes(5, 1),
    params:
        root=lambda wc: str(PATHS.root),
        members=members_of,
        options=STUDY.options("measure"),
        code=stage_digest("measure"),
    script:
        "../scripts/measure.py"

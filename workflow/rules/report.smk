# Overlays of each ear, figures, and the report.


rule draw_overlays:
    input:
        segment=str(PATHS.chunk("segment", "{model}", "{chunk}")),
        measure=str(PATHS.chunk("measure", "{model}", "{chunk}")),
    output:
        manifest=str(PATHS.chunk("draw", "{model}", "{chunk}")),
    log:
        log_of("draw", "{model}/{chunk}"),
    benchmark:
        benchmark_of("draw", "{model}/{chunk}")
    conda:
        "../../envs/hydrops.yaml"
    threads: 1
    resources:
        mem_mb=at_attempt(1000),
        runtime=minutes(5, 1),
    params:
        root=lambda wc: str(PATHS.root),
        members=members_of,
        code=stage_digest("draw"),
    script:
        "../scripts/draw.py"


rule write_report:
    input:
        tables=[
            str(PATHS.cohort("{model}", f"{name}.tsv"))
            for name in ("ears", "exclusions", "landmarks", "statistics")
        ],
        participants=STUDY.config["participants"],
        reader=STUDY.config["reader_table"] or [],
        overlays=chunks_of("draw"),
    output:
        report=str(PATHS.report("{model}", "report.html")),
    log:
        log_of("report", "{model}"),
    benchmark:
        benchmark_of("report", "{model}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=for_cohort(1000, 200),
        runtime=for_cohort(10, 5),
    params:
        root=lambda wc: str(PATHS.root),
        bundle=lambda wc: str(STUDY.bundles[wc.model].folder),
        sha256=lambda wc: STUDY.bundles[wc.model].sha256,
        gpu_stages=GPU_STAGES,
        options=STUDY.told_options(),
        simulated=bool(STUDY.config["phantom"]),
        code=stage_digest("report"),
    script:
        "../scripts/report.py"

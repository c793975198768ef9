# Both ears in the whole head, and a crop of each.


rule locate_ears:
    input:
        ingest=str(PATHS.record("ingest", UNIT)),
        register=str(PATHS.record("register", UNIT)),
    output:
        record=str(PATHS.record("locate", UNIT)),
    log:
        log_of("locate", PREFIX),
    benchmark:
        benchmark_of("locate", PREFIX)
    group:
        "prepare"
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=lambda wc, attempt: 2000 * attempt,
        runtime=lambda wc, attempt: 10 * attempt,
    params:
        root=lambda wc: str(PATHS.root),
        options=STUDY.options("locate"),
        code=stage_digest("locate"),
    script:
        "../scripts/locate.py"

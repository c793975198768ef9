# Both ears in the whole head, and a crop of each.


rule locate_ears:
    input:
        ingest=str(PATHS.chunk("ingest", None, "{batch}")),
        register=str(PATHS.chunk("register", None, "{batch}")),
    output:
        manifest=str(PATHS.chunk("locate", None, "{batch}")),
    log:
        log_of("locate", "{batch}"),
    benchmark:
        benchmark_of("locate", "{batch}")
    group:
        "prepare"
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(1000),
        runtime=minutes(5, 1),
    params:
        root=lambda wc: str(PATHS.root),
        members=members_of,
        options=STUDY.options("locate"),
        code=stage_digest("locate"),
    script:
        "../scripts/locate.py"

# Images of each role out of a session's files.


rule ingest_session:
    input:
        phantoms=phantoms_of,
    output:
        manifest=str(PATHS.chunk("ingest", None, "{batch}")),
    log:
        log_of("ingest", "{batch}"),
    benchmark:
        benchmark_of("ingest", "{batch}")
    group:
        "prepare"
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(1000),
        runtime=minutes(5, 1),
    params:
        root=lambda wc: str(PATHS.root),
        members=sources_of,
        protocol=protocol_text(STUDY.protocol),
        code=stage_digest("ingest"),
    script:
        "../scripts/ingest.py"

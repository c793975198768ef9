# Images of each role out of a session's files.


rule ingest_session:
    input:
        source=source_of,
    output:
        record=str(PATHS.record("ingest", UNIT)),
    log:
        log_of("ingest", PREFIX),
    benchmark:
        benchmark_of("ingest", PREFIX)
    group:
        "prepare"
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=lambda wc, attempt: 2000 * attempt,
        runtime=lambda wc, attempt: 10 * attempt,
    params:
        root=lambda wc: str(PATHS.root),
        source=lambda wc: str(STUDY.source(wc.participant, wc.session)),
        protocol=protocol_text(STUDY.protocol),
        code=stage_digest("ingest"),
    script:
        "../scripts/ingest.py"

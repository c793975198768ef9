# Inversion images onto the MRC; HYDROPS and HYDROPS-Mi2.


rule register_session:
    input:
        ingest=str(PATHS.record("ingest", UNIT)),
    output:
        record=str(PATHS.record("register", UNIT)),
    log:
        log_of("register", PREFIX),
    benchmark:
        benchmark_of("register", PREFIX)
    group:
        "prepare"
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=lambda wc, attempt: 3000 * attempt,
        runtime=lambda wc, attempt: 10 * attempt,
    params:
        root=lambda wc: str(PATHS.root),
        options=STUDY.options("register"),
        code=stage_digest("register"),
    script:
        "../scripts/register.py"

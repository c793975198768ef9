# Inversion images onto the MRC; HYDROPS and HYDROPS-Mi2.


rule register_session:
    input:
        ingest=str(PATHS.chunk("ingest", None, "{batch}")),
    output:
        manifest=str(PATHS.chunk("register", None, "{batch}")),
    log:
        log_of("register", "{batch}"),
    benchmark:
        benchmark_of("register", "{batch}")
    group:
        "prepare"
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(3000),
        runtime=minutes(5, 2),
    params:
        root=lambda wc: str(PATHS.root),
        members=members_of,
        options=STUDY.options("register"),
        code=stage_digest("register"),
    script:
        "../scripts/register.py"

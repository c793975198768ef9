# Compartments and landmarks of each ear; the model is loaded once for a chunk.


rule segment_ears:
    input:
        ingest=batches_of_chunk("ingest"),
        locate=batches_of_chunk("locate"),
    output:
        manifest=str(PATHS.chunk("segment", "{model}", "{chunk}")),
    log:
        log_of("segment", "{model}/{chunk}"),
    benchmark:
        benchmark_of("segment", "{model}/{chunk}")
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=at_attempt(3000),
        runtime=minutes(10, 1),
        gpu=GPUS,
    params:
        root=lambda wc: str(PATHS.root),
        members=members_of,
        model=lambda wc: str(STUDY.bundles[wc.model].folder),
        sha256=lambda wc: STUDY.bundles[wc.model].sha256,
        device=STUDY.config["device"],
        code=stage_digest("segment"),
    script:
        "../scripts/segment.py"

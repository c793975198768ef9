# Digital phantoms for the demo: DICOM and, beside it, the truth.


rule draw_phantom:
    output:
        dicom=directory("demo/dicom/sub-{participant}"),
        truth=directory("demo/truth/sub-{participant}"),
    log:
        log_of("phantom", "sub-{participant}"),
    benchmark:
        benchmark_of("phantom", "sub-{participant}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(2000),
        runtime=at_attempt(10),
    params:
        spec=lambda wc: STUDY.phantoms[wc.participant],
        code=stage_digest("phantom.cohort"),
    script:
        "../scripts/phantom.py"


rule simulate_reader:
    input:
        truth=[
            f"demo/truth/sub-{p}" for p in STUDY.participants.participant_id.unique()
        ],
    output:
        table="demo/reader.tsv",
    log:
        log_of("phantom", "reader"),
    benchmark:
        benchmark_of("phantom", "reader")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(1000),
        runtime=at_attempt(10),
    params:
        code=stage_digest("phantom.cohort"),
    script:
        "../scripts/reader.py"

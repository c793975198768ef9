# One thing of a model of CT changed at a time: snakemake ablate.
CHANGES = list(ABLATION.changes)
ABLATED_FOLDS = [str(fold) for fold in ABLATION.folds]


localrules:
    ablate,


rule ablate:
    input:
        f"training/{TRAINING.name}/ablation.tsv",


rule train_change:
    output:
        weights="training/{task}/ablation/{change}/{part}/weights.pt",
    log:
        log_of("ablate", "{task}_{change}_{part}"),
    benchmark:
        benchmark_of("ablate", "{task}_{change}_{part}")
    wildcard_constraints:
        change="[a-z0-9_]+",
        part="[0-9]+",
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=at_attempt(6000),
        runtime=at_attempt(120),
        gpu=GPUS,
    params:
        task=str(TRAINING.path),
        options=TRAINING.options,
        grid=str(TRAINING.ablation),
        change=lambda wc: json.dumps(ABLATION.changes[wc.change], sort_keys=True),
        steps=ABLATION.steps,
        specimens=SPECIMENS,
        images=lambda wc: images_state(TRAINING),
        device=STUDY.config["device"],
        code=stage_digest("model.ablate"),
    script:
        "../scripts/train_change.py"


rule tabulate_changes:
    input:
        weights=expand(
            "training/{{task}}/ablation/{change}/{part}/weights.pt",
            change=CHANGES,
            part=ABLATED_FOLDS,
        ),
    output:
        table="training/{task}/ablation.tsv",
    log:
        log_of("tabulate_changes", "{task}"),
    benchmark:
        benchmark_of("tabulate_changes", "{task}")
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=at_attempt(6000),
        runtime=at_attempt(60),
    params:
        task=str(TRAINING.path),
        options=TRAINING.options,
        grid=str(TRAINING.ablation),
        changes=TRAINING.ablation.read_text(),
        specimens=SPECIMENS,
        images=lambda wc: images_state(TRAINING),
        code=stage_digest("model.ablation_table"),
    script:
        "../scripts/tabulate_changes.py"

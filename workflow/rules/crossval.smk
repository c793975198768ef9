# Models of labelled images: a network for each fold and one on all cases; their bundle and card.
FOLDS = [str(fold) for fold in range(TRAINING.folds)]


localrules:
    train,
    package,
    evaluate,


rule train:
    input:
        expand(f"training/{TRAINING.name}/{{part}}/weights.pt", part=[*FOLDS, "all"]),


rule package:
    input:
        f"training/{TRAINING.name}/packaged.json",


rule evaluate:
    input:
        f"training/{TRAINING.name}/packaged.json",


rule train_part:
    output:
        weights="training/{task}/{part}/weights.pt",
    log:
        log_of("train", "{task}_{part}"),
    benchmark:
        benchmark_of("train", "{task}_{part}")
    wildcard_constraints:
        part="[0-9]+|all",
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=6000,
        runtime=240,
        gpu=GPUS,
    params:
        task=str(TRAINING.path),
        options=TRAINING.path.read_text(),
        specimens=STUDY.config["training"]["specimens"],
        device=STUDY.config["device"],
        code=stage_digest("model.fold_training"),
    script:
        "../scripts/train_part.py"


rule test_folds:
    input:
        weights=expand("training/{{task}}/{part}/weights.pt", part=FOLDS),
    output:
        cases="training/{task}/cases.tsv",
        summary="training/{task}/summary.tsv",
        comparison="training/{task}/comparison.tsv",
        pictures=directory("training/{task}/pictures"),
    log:
        log_of("evaluate", "{task}"),
    benchmark:
        benchmark_of("evaluate", "{task}")
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        task=str(TRAINING.path),
        options=TRAINING.path.read_text(),
        specimens=STUDY.config["training"]["specimens"],
        code=stage_digest("model.folds"),
    script:
        "../scripts/test_folds.py"


rule package_folds:
    input:
        weights="training/{task}/all/weights.pt",
        summary="training/{task}/summary.tsv",
        comparison="training/{task}/comparison.tsv",
        pictures="training/{task}/pictures",
        notes=[
            str(n) for n in sorted(TRAINING.path.parent.glob(f"{TRAINING.name}-*.md"))
        ],
    output:
        metadata="training/{task}/packaged.json",
    log:
        log_of("package", "{task}"),
    benchmark:
        benchmark_of("package", "{task}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        task=str(TRAINING.path),
        options=TRAINING.path.read_text(),
        models=STUDY.config["models_dir"],
        specimens=STUDY.config["training"]["specimens"],
        code=stage_digest("model.folds"),
    script:
        "../scripts/package_folds.py"

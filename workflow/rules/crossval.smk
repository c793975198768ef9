# Models of labelled images: a network for each fold and one on all cases; their bundle and card.
TASKS = {training.name: training for training in TRAININGS}
CROSS_VALIDATION = PATHS.root / "cross_validation"
FOLDS = {name: [str(n) for n in range(TASKS[name].folds)] for name in TASKS}


localrules:
    train,
    package,
    evaluate,


rule train:
    input:
        [
            f"training/{task}/{part}/weights.pt"
            for task in TASKS
            for part in [*FOLDS[task], "all"]
        ],


rule package:
    input:
        expand("training/{task}/packaged.json", task=TASKS),


rule evaluate:
    input:
        expand("training/{task}/packaged.json", task=TASKS),
        [str(CROSS_VALIDATION / "README.md")] if len(TASKS) > 1 else [],


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
        mem_mb=at_attempt(6000),
        runtime=at_attempt(240),
        gpu=GPUS,
    params:
        task=lambda wc: str(TASKS[wc.task].path),
        options=lambda wc: TASKS[wc.task].options,
        specimens=SPECIMENS,
        images=lambda wc: images_state(TASKS[wc.task]),
        device=STUDY.config["device"],
        code=stage_digest("model.fold_training"),
    script:
        "../scripts/train_part.py"


rule test_folds:
    input:
        weights=lambda wc: [
            f"training/{wc.task}/{fold}/weights.pt" for fold in FOLDS[wc.task]
        ],
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
        mem_mb=at_attempt(6000),
        runtime=at_attempt(60),
    params:
        task=lambda wc: str(TASKS[wc.task].path),
        options=lambda wc: TASKS[wc.task].options,
        specimens=SPECIMENS,
        images=lambda wc: images_state(TASKS[wc.task]),
        code=stage_digest("model.folds"),
    script:
        "../scripts/test_folds.py"


rule package_folds:
    input:
        weights="training/{task}/all/weights.pt",
        summary="training/{task}/summary.tsv",
        comparison="training/{task}/comparison.tsv",
        pictures="training/{task}/pictures",
        notes=lambda wc: [str(n) for n in [TASKS[wc.task].notes] if n.is_file()],
    output:
        metadata="training/{task}/packaged.json",
    log:
        log_of("package", "{task}"),
    benchmark:
        benchmark_of("package", "{task}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(2000),
        runtime=at_attempt(10),
    params:
        task=lambda wc: str(TASKS[wc.task].path),
        options=lambda wc: TASKS[wc.task].options,
        models=STUDY.config["models_dir"],
        specimens=SPECIMENS,
        images=lambda wc: images_state(TASKS[wc.task]),
        code=stage_digest("model.folds"),
    script:
        "../scripts/package_folds.py"


rule compare_folds:
    input:
        cases=expand("training/{task}/cases.tsv", task=TASKS),
        pictures=expand("training/{task}/pictures", task=TASKS),
    output:
        page=str(CROSS_VALIDATION / "README.md"),
        tables=[
            str(CROSS_VALIDATION / f"{name}.tsv")
            for name in ("measures", "comparison")
        ],
        boxes=str(CROSS_VALIDATION / "boxes.png"),
        overlays=expand(str(CROSS_VALIDATION / "{task}.png"), task=TASKS),
    log:
        log_of("compare", "folds"),
    benchmark:
        benchmark_of("compare", "folds")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(2000),
        runtime=at_attempt(10),
    params:
        tasks=[str(training.path) for training in TRAININGS],
        options=[training.options for training in TRAININGS],
        code=stage_digest("model.compare_folds"),
    script:
        "../scripts/compare_folds.py"

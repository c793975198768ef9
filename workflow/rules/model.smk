# The shipped models: snakemake train, then snakemake package, then snakemake evaluate.


localrules:
    train,
    package,
    evaluate,


rule train:
    input:
        f"training/{TRAINING.name}/weights.pt",


rule package:
    input:
        f"training/{TRAINING.name}/packaged.json",


rule evaluate:
    input:
        expand(str(PATHS.root / "evaluation" / "{model}" / "card.md"), model=MODELS),


rule train_model:
    output:
        weights="training/{task}/weights.pt",
    log:
        log_of("train", "{task}"),
    benchmark:
        benchmark_of("train", "{task}")
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=6000,
        runtime=720,
        gpu=GPUS,
    params:
        task=str(TRAINING.path),
        options=TRAINING.path.read_text(),
        specimens=STUDY.config["training"]["specimens"],
        device=STUDY.config["device"],
        code=stage_digest("model.train"),
    script:
        "../scripts/train.py"


rule package_model:
    input:
        weights="training/{task}/weights.pt",
    output:
        metadata="training/{task}/packaged.json",
    log:
        log_of("package", "{task}"),
    benchmark:
        benchmark_of("package", "{task}")
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        task=str(TRAINING.path),
        options=TRAINING.path.read_text(),
        models=STUDY.config["models_dir"],
        specimens=STUDY.config["training"]["specimens"],
        code=stage_digest("model.package"),
    script:
        "../scripts/package.py"


rule evaluate_model:
    output:
        ears=str(PATHS.root / "evaluation" / "{model}" / "ears.tsv"),
        summary=str(PATHS.root / "evaluation" / "{model}" / "summary.tsv"),
    log:
        log_of("evaluate", "{model}"),
    benchmark:
        benchmark_of("evaluate", "{model}")
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=6000,
        runtime=120,
    params:
        bundle=lambda wc: str(STUDY.bundles[wc.model].folder),
        sha256=lambda wc: STUDY.bundles[wc.model].sha256,
        training=json.dumps(STUDY.config["training"], sort_keys=True),
        code=stage_digest("model.evaluate"),
    script:
        "../scripts/evaluate.py"


rule draw_card:
    input:
        ears=str(PATHS.root / "evaluation" / "{model}" / "ears.tsv"),
    output:
        pictures=directory(str(PATHS.root / "evaluation" / "{model}" / "pictures")),
    log:
        log_of("draw_card", "{model}"),
    benchmark:
        benchmark_of("draw_card", "{model}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        bundle=lambda wc: str(STUDY.bundles[wc.model].folder),
        sha256=lambda wc: STUDY.bundles[wc.model].sha256,
        real_ear=STUDY.config["training"]["real_ear"],
        code=stage_digest("model.pictures"),
    script:
        "../scripts/draw_card.py"


rule write_card:
    input:
        summary=str(PATHS.root / "evaluation" / "{model}" / "summary.tsv"),
        pictures=str(PATHS.root / "evaluation" / "{model}" / "pictures"),
        notes=lambda wc: [
            str(n) for n in [TRAINING.path.parent / f"{wc.model}.md"] if n.is_file()
        ],
    output:
        card=str(PATHS.root / "evaluation" / "{model}" / "card.md"),
    log:
        log_of("card", "{model}"),
    benchmark:
        benchmark_of("card", "{model}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        bundle=lambda wc: str(STUDY.bundles[wc.model].folder),
        sha256=lambda wc: STUDY.bundles[wc.model].sha256,
        code=stage_digest("model.package"),
    script:
        "../scripts/card.py"

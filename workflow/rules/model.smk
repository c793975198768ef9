# The models of MR: snakemake train, then snakemake package, then snakemake evaluate.


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
        pages_of_evaluation,


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
        mem_mb=at_attempt(6000),
        runtime=at_attempt(720),
        gpu=GPUS,
    params:
        task=str(TRAINING.path),
        options=TRAINING.options,
        specimens=SPECIMENS,
        images=lambda wc: images_state(TRAINING),
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
        mem_mb=at_attempt(6000),
        runtime=at_attempt(120),
    params:
        task=str(TRAINING.path),
        options=TRAINING.options,
        models=STUDY.config["models_dir"],
        specimens=SPECIMENS,
        images=lambda wc: images_state(TRAINING),
        code=stage_digest("model.release"),
    script:
        "../scripts/package.py"


rule evaluate_models:
    output:
        ears=str(EVALUATION / "ears.tsv"),
        summary=str(EVALUATION / "summary.tsv"),
        slices=directory(str(EVALUATION / "slices")),
    log:
        log_of("evaluate", "models"),
    benchmark:
        benchmark_of("evaluate", "models")
    conda:
        "../../envs/hydrops.yaml"
    threads: 2
    resources:
        mem_mb=at_attempt(6000),
        runtime=at_attempt(240),
    params:
        bundles=[str(bundle.folder) for bundle in STUDY.bundles.values()],
        sha256=[bundle.sha256 for bundle in STUDY.bundles.values()],
        test=tested_on(),
        specimens=SPECIMENS,
        images=lambda wc: images_state(TRAINING),
        code=stage_digest("model.evaluate"),
    script:
        "../scripts/evaluate.py"


rule compare_models:
    input:
        ears=str(EVALUATION / "ears.tsv"),
        summary=str(EVALUATION / "summary.tsv"),
        slices=str(EVALUATION / "slices"),
    output:
        page=str(EVALUATION / "README.md"),
        tables=[str(EVALUATION / f"{name}.tsv") for name in ("measures", "comparison")],
        pictures=[
            str(EVALUATION / f"{name}.png")
            for name in ("boxes", "agreement", "overlays")
        ],
    log:
        log_of("compare", "models"),
    benchmark:
        benchmark_of("compare", "models")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(2000),
        runtime=at_attempt(10),
    params:
        bundles=[str(bundle.folder) for bundle in STUDY.bundles.values()],
        sha256=[bundle.sha256 for bundle in STUDY.bundles.values()],
        code=stage_digest("model.compare"),
    script:
        "../scripts/compare.py"


rule draw_card:
    input:
        ears=str(EVALUATION / "ears.tsv"),
    output:
        pictures=directory(str(EVALUATION / "{model}" / "pictures")),
    log:
        log_of("draw_card", "{model}"),
    benchmark:
        benchmark_of("draw_card", "{model}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(2000),
        runtime=at_attempt(10),
    params:
        bundle=lambda wc: str(STUDY.bundles[wc.model].folder),
        sha256=lambda wc: STUDY.bundles[wc.model].sha256,
        real_ear=STUDY.config["training"]["real_ear"],
        code=stage_digest("model.pictures"),
    script:
        "../scripts/draw_card.py"


rule write_card:
    input:
        summary=str(EVALUATION / "summary.tsv"),
        ears=str(EVALUATION / "ears.tsv"),
        pictures=str(EVALUATION / "{model}" / "pictures"),
        notes=lambda wc: [
            str(n) for n in [TRAINING.path.parent / f"{wc.model}.md"] if n.is_file()
        ],
    output:
        card=str(EVALUATION / "{model}" / "card.md"),
    log:
        log_of("card", "{model}"),
    benchmark:
        benchmark_of("card", "{model}")
    conda:
        "../../envs/hydrops.yaml"
    resources:
        mem_mb=at_attempt(1000),
        runtime=at_attempt(10),
    params:
        bundle=lambda wc: str(STUDY.bundles[wc.model].folder),
        sha256=lambda wc: STUDY.bundles[wc.model].sha256,
        code=stage_digest("model.package"),
    script:
        "../scripts/card.py"

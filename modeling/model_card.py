"""The model card of published weights: README.md, as the Hugging Face Hub shows it."""

from collections.abc import Iterable, Mapping, Sequence

from utils.scoring.metrics import percent

# Flags of train.py that make the recipe, as far as the checkpoint has them
RECIPE = (
    "backbone", "head", "multi_grid", "width", "wide_tap", "out_stride", "dropout", "dataset", "use_sbd", "base_size",
    "crop_size", "epochs", "batch_size", "lr", "head_lr_factor", "lr_scheduler", "warmup_steps", "momentum",
    "weight_decay", "loss_type", "use_balanced_weights", "freeze_bn", "ema", "amp", "seed",
)  # fmt: skip
MEANS = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "fwiou": "fwIoU",
}


def model_card(description: Mapping, *, address: str, license_id: str) -> str:
    """Markdown with the head that the Hub reads. `description`: that of `utils.run.weights_file`.

    `address`: what to give as --checkpoint to use the weights.
    """
    config = description["config"]
    parts = [
        head(config["backbone"], license_id),
        f"# DeepLabV3+ with {config['backbone']}" + (f", {config['dataset']}" if "dataset" in config else ""),
        summary(description),
        usage(address),
        scores_section(description.get("scores") or {}),
        data_section(description),
        training_section(description),
        f"## License\n\nWeights: {license_id}. Datasets and initial weights may have terms of their own.",
    ]
    return "\n\n".join(parts) + "\n"


def head(backbone: str, license_id: str) -> str:
    tags = "\n".join(f"- {tag}" for tag in ("deeplabv3plus", "semantic-segmentation", backbone))
    return f"---\nlicense: {license_id}\nlibrary_name: pytorch\npipeline_tag: image-segmentation\ntags:\n{tags}\n---"


def summary(description: Mapping) -> str:
    config, classes = description["config"], description["classes"]
    miou = (description.get("scores") or {}).get("miou")
    lines = [
        f"Semantic segmentation into {len(classes)} classes: {', '.join(map(escape, classes))}.",
        f"Network: {config['backbone']}, {config['head']} head, output stride {config['out_stride']}.",
    ]
    if miou is not None:
        lines.append(f"mIoU {percent(miou)} % ({protocol_line(description['protocol'])}).")
    return "\n".join(lines)


def usage(address: str) -> str:
    return f"""## Use

With the repository that these weights come from:

```bash
python predict.py --checkpoint {address} photo.jpg --out labeled    # label images
python train.py --ft --resume {address} --dataset folder --data-root mine    # train on from these weights
```

In Python, in the repository's folder:

```python
from predict import Segmenter

Segmenter("{address}")("photo.jpg").overlay().save("overlay.png")
```

In Python, from anywhere:

```python
import torch

segmenter = torch.hub.load("/path/to/clone", "segmenter", checkpoint="{address}", source="local")
segmenter("photo.jpg").overlay().save("overlay.png")
```"""


def scores_section(scores: Mapping) -> str:
    if not scores:
        return "## Scores\n\nNone. `python evaluate.py --out DIR` writes a metrics.json, `--scores` puts it here."
    data = " ".join(str(scores[key]) for key in ("dataset", "split") if key in scores) or "the validation split"
    images = f", {scores['pictures']} images" if "pictures" in scores else ""
    rows = [
        (escape(name), percent(row["iou"]), percent(row.get("accuracy")), f"{row.get('pixels', 0):,}")
        for name, row in scores["per_class"].items()
    ]
    means = [(f"**{text}**", f"**{percent(scores[key])}**", "", "") for key, text in MEANS.items() if key in scores]
    lines = table(("class", "IoU, %", "accuracy, %", "labeled pixels"), rows + means)
    return f"## Scores\n\nOn {data}{images}; {protocol_line(scores)}.\n\n{lines}"


def protocol_line(settings: Mapping) -> str:
    parts = [f"protocol {settings.get('protocol', 'whole')}"]
    for key, text in (("crop_size", "crop size"), ("stride", "stride"), ("out_stride", "output stride")):
        if key in settings:
            parts.append(f"{text} {value(settings[key])}")
    parts.append(f"scales {value(settings.get('scales', [1.0]))}")
    return ", ".join(parts) + (", flip" if settings.get("flip") else "")


def data_section(description: Mapping) -> str:
    config, lines = description["config"], []
    sizes = config.get("dataset_sizes", {})
    if "dataset" in config:
        counts = ", ".join(f"{sizes[split]} {split}" for split in ("train", "val") if sizes.get(split))
        lines.append(f"Trained on `{config['dataset']}`" + (f" ({counts} images)." if counts else "."))
    scale, shift = (", ".join(f"{number:g}" for number in description[key]) for key in ("std", "mean"))
    lines.append(f"Input: RGB in 0..1, minus {shift}, divided by {scale}; the repository's code does this itself.")
    return "## Data\n\n" + "\n".join(lines)


def training_section(description: Mapping) -> str:
    config, lines = description["config"], ["## Training"]
    if commands := config.get("commands"):
        lines.append("```bash\n" + "\n".join(commands) + "\n```\n\nOf each path only the last name is given.")
    facts = [f"Initial weights: {initial_weights(config)}."]
    if "epoch" in description:
        facts.append(f"Weights after epoch {description['epoch']}, step {description.get('step', 'not known')}.")
    if config.get("commit"):
        facts.append(f"Commit: `{config['commit']}`.")
    if versions := config.get("versions"):
        facts.append("Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    lines.append("\n".join(facts))
    lines.append(table(("flag", "value"), [(key, value(config[key])) for key in RECIPE if config.get(key) is not None]))
    return "\n\n".join([*lines, "`config.json` holds every flag."])


def initial_weights(config: Mapping) -> str:
    if config.get("ft") and config.get("resume"):
        return str(config["resume"])
    return str(config.get("weights_from") or config.get("backbone_weights") or config.get("source") or "not known")


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def value(setting: object) -> str:
    if isinstance(setting, bool):
        return "on" if setting else "off"
    return " ".join(map(str, setting)) if isinstance(setting, list | tuple) else str(setting)


def escape(name: str) -> str:
    """For a cell of a table."""
    return name.replace("|", "\\|")

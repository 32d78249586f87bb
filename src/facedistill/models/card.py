"""The README.md inside a model folder, for a person who has only the folder."""

import json
from typing import Any

FEATURES = "features"  # what a model takes, if no images
COMPARED = "Two samples are compared by the cosine of their embeddings.\n"
PIXELS = "3 x H x W, RGB, 0..255, uint8 or float"
CROPS = """
The images must be aligned face crops: the 5 landmarks moved to the ArcFace template of 112x112 pixels.
Resize, colour order and normalisation happen inside.
"""


def model_card(config: dict[str, Any], name: str, address: str | None = None) -> str:
    """Return the card, in Markdown, of the model whose config.json holds `config`.

    Args:
        address: by which the reader loads it; default: `name`, the folder.
    """
    parts = [f"# {name}\n", _what(config), _use(config, address or name), _facts(config)]
    if config["thresholds"]:
        parts.append(_thresholds(config))
    parts.append(
        "## How it was made\n\n```json\n"
        + json.dumps(config["made"], indent=2, ensure_ascii=False)
        + "\n```\n\n## Licence\n\nfacedistill puts no licence on this model. What you may do with it depends on the "
        "data and the teacher it was made from;\nmany face data sets allow research only. That is for you to settle.\n"
    )
    return "\n".join(parts)


def _what(config: dict[str, Any]) -> str:
    d, size = config["embedding_dim"], config["input"]["size"]
    if "backbone" in config:
        return f"Embeddings of a teacher, {d}-d, without its network: a student can inherit its classifier.\n"
    if config.get("takes") == FEATURES:
        what = f"A network for vectors of features (`{config['architecture']}`): {size} features in, {d} numbers out.\n"
        return what + COMPARED
    return (
        f"A face-recognition network (`{config['architecture']}`): an aligned {size}x{size} face in, {d} numbers out.\n"
        + COMPARED.replace("samples", "faces")
        + _code(config["architecture"])
    )


def _code(architecture: str) -> str:
    """Return how to get the code of a network from outside facedistill, which is not in the folder; else ""."""
    if ":" not in architecture:
        return ""
    module = architecture.partition(":")[0]
    return (
        f"\nThe code of the network is not in this folder. To load it, make the Python module `{module}` importable: "
        "install it, or put\nthe folder that holds it on PYTHONPATH.\n"
    )


def _use(config: dict[str, Any], name: str) -> str:
    if "backbone" in config:
        return f"```\nfacedistill distill --teacher {name} --data DATASET --student mobilefacenet --out RUN\n```\n"
    of_features = config.get("takes") == FEATURES
    what, kind = ("samples", f"{config['input']['size']}, float") if of_features else ("images", PIXELS)
    return f"""## Use

```python
import facedistill as fd

model = fd.load_model("{name}")
# {what}: N x {kind} -> N x {config["embedding_dim"]}, unit length
embeddings = model.embed({what})
cosine = embeddings @ embeddings.T
```
{"" if of_features else CROPS}"""


def _thresholds(config: dict[str, Any]) -> str:
    lines = [
        "Accept two faces as one person at this cosine or above (probe and gallery: fingerprints of the models):\n"
    ]
    lines += ["| false-accept rate | cosine | 95% interval | probe | gallery | flip | measured on |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for t in config["thresholds"]:
        interval = " to ".join(f"{x:.4f}" for x in t.get("interval", []))
        models = f"`{t['probe']}` | `{t['gallery']}`"
        how = f"{t.get('flip', '')} | {t.get('set', '')}"
        lines.append(f"| {t['far']:g} | {t['value']:.4f} | {interval} | {models} | {how} |")
    return "\n".join([*lines, ""])


def _facts(config: dict[str, Any]) -> str:
    rows = {
        "parameters": f"{config['parameters']:,}" if "parameters" in config else None,
        "multiply-adds per image": f"{config['macs'] / 1e6:,.1f} M" if "macs" in config else None,
        "embedding space": f"`{config['space']}`; only models with this id have comparable embeddings",
        "classifier": "{classes:,} classes (W: {origin})".format(**config["classifier"])
        if "classifier" in config
        else None,
    }
    lines = [f"| {what} | {value} |" for what, value in rows.items() if value is not None]
    return "\n".join(["| | |", "| --- | --- |", *lines, ""])

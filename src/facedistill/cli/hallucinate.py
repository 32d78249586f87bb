"""The verb hallucinate: train a hallucination network, join it to a recogniser, write faces."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from facedistill.cli.app import Folder, Json, answer, app

hallucinate = App(name="hallucinate", sort_key=7.5)
app.command(hallucinate)


@hallucinate.default
def faces(model: Path, images: Path, /, *, out: Folder) -> None:
    """Raise faces of few pixels to sharp ones: an invention of the network, and no evidence.

    `hallucinate train` trains such a network, and `hallucinate compose` puts it before a recogniser.

    Example: `facedistill hallucinate fhn crops --out faces`

    Parameters
    ----------
    model:
        A run of `hallucinate train`, its fhn.safetensors, or a composed model.
    images:
        A folder of face crops of any size.
    out:
        The folder for the faces: a PNG for each image, of the same name.
    """
    from facedistill import hallucination

    network, size = hallucination.network_of(model)
    count = hallucination.hallucinate(network, size, images, out)
    answer(f"{count:,} faces of {size} x {size} pixels are in {out}\n{hallucination.WARNING}.")


@hallucinate.command
def train(
    recipe: str,
    /,
    *overrides: str,
    out: Folder,
    stage: Literal["priors", "pairs", "adversarial", "joint"] = "pairs",
    json_: Json = None,
) -> None:
    """Train a hallucination network (RIM's), stage by stage, into one folder.

    The same command resumes a stage that stopped. Each stage begins with the network of the one before it.

    Examples:

    `facedistill hallucinate train fhn --out fhn --stage priors data=photos hallucination.priors=index`

    `facedistill hallucinate train fhn --out fhn --stage pairs data=photos hallucination.priors=index teacher=teacher`

    `facedistill hallucinate train fhn --out fhn --stage adversarial data=photos hallucination.low=cctv`

    `facedistill hallucinate train joint.yaml --out fhn --stage joint data=photos teacher=teacher student.start=run`

    Parameters
    ----------
    recipe:
        A YAML file with the group `hallucination`, or the name of a shipped recipe.
    overrides:
        key=value: change the recipe, e.g. hallucination.preset=small.
    out:
        The folder of all stages; each has its own in it.
    stage:
        priors: landmarks and parsing. pairs: the whole network, on clean faces made small. adversarial: with real low
        images that have no partners. joint: before the recogniser student.start, by the recipe's method.
    json_:
        Also write the figures to this file.
    """
    import json

    from facedistill import hallucination
    from facedistill.cli.show import describe
    from facedistill.demo import with_demo_teachers
    from facedistill.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    if stage == "joint":
        answer(describe(str(hallucination.train(with_demo_teachers(loaded), out, stage))))
        return
    run = hallucination.train(loaded, out, stage)
    result = json.loads((run / hallucination.MEASURES).read_text(encoding="utf-8"))
    answer(hallucination.text_of(result), json_, result)


@hallucinate.command
def compose(network: Path, recogniser: Path, /, *, out: Folder) -> None:
    """Put a hallucination network before a recogniser: one model, for every verb that takes a model.

    Example: `facedistill hallucinate compose fhn run --out model`

    Parameters
    ----------
    network:
        A run of `hallucinate train`, or its fhn.safetensors.
    recogniser:
        A model folder or a run, of the same image size.
    out:
        The model folder to write.
    """
    from facedistill import hallucination
    from facedistill.cli.show import describe_model
    from facedistill.models import load_model, save_model

    fhn, size = hallucination.network_of(network)
    save_model(hallucination.compose(fhn, size, load_model(recogniser, classifier=False)), out)
    answer(describe_model(out))

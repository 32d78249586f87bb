"""Check that a teacher's classifier knows the labels of images that may have several."""

from pathlib import Path

import numpy as np

from facedistill.check.report import CheckReport
from facedistill.data import Dataset
from facedistill.errors import UserError, some
from facedistill.evaluation import multi_label
from facedistill.head import Classifier
from facedistill.models import Model, embed_dataset

LEAST_AUC = 0.6  # mean over labels; 0.5 is chance
MOST_IMAGES = 5000


def check_labels(model: Model, dataset: Dataset, cache: Path | None = None) -> CheckReport:
    """Check a teacher against data whose images may have several labels: the AUC of each label by its row of W.

    Raises UserError if the model has no network.
    """
    report, known = CheckReport(), model.classifier
    shared = [] if known is None else [name for name in dataset.label_names if name in set(known.class_names)]
    report.add("labels of the data in W", f"{len(shared)}", f"{len(dataset.label_names)}", "classes")
    if known is None or not shared:
        report.faults["classes"] = (
            "the teacher brings no classifier, so its labels cannot be checked: train it, e.g. by the recipe bce"
            if known is None
            else f"W knows {some(known.class_names)}, and none of the data's labels {some(dataset.label_names)}"
        )
        return report
    if missing := [name for name in dataset.label_names if name not in shared]:
        report.warnings["classes"] = f"W lacks {len(missing)} of the labels ({some(missing)}): a teacher of a subset"
    auc = label_auc(model, known.select(shared), dataset, cache)
    report.values["auc"] = auc
    if not auc:
        report.faults["own_class"] = "no label is on some of the images and missing on others, so none can be checked"
        return report
    mean = float(np.mean(list(auc.values())))
    report.add("mean AUC of the labels through W", f"{mean:.3f}", f"at least {LEAST_AUC}", "own_class")
    report.lines += [f"{name}: AUC {value:.3f}" for name, value in sorted(auc.items(), key=lambda item: item[1])]
    if mean < LEAST_AUC:
        report.faults["own_class"] = (
            f"W finds the labels hardly better than by chance (mean AUC {mean:.3f}): label names, colour order or "
            "normalisation do not fit the data"
        )
    elif turned := [name for name, value in auc.items() if value < 0.5]:
        report.warnings["names"] = f"{some(turned)}: found worse than by chance; its name may belong to another column"
    return report


def label_auc(model: Model, classifier: Classifier, dataset: Dataset, cache: Path | None = None) -> dict[str, float]:
    """Return the AUC of each label of W by cosine, on at most 5,000 images; labels on all images or none are left out.

    Args:
        classifier: rows of labels that the data has.
    """
    if model.backbone is None:
        raise UserError("check: the teacher has no network, and its labels need one; import its checkpoint")
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset))[:MOST_IMAGES])
    part = dataset.subset(chosen)
    table = embed_dataset(model, part, cache=cache)
    hot = part.labels_of(table.keys, classifier.class_names)
    cosines = table.fused("sum") @ classifier.weight.float().cpu().numpy().T
    found = multi_label(cosines, hot, classifier.class_names, sure=False, resamples=0)
    return {of["class"]: of["auc"] for of in found.of_classes if "auc" in of}


def require_labels_fit(model: Model, classifier: Classifier, dataset: Dataset, cache: Path | None = None) -> None:
    """Raise UserError if the teacher finds the labels of its own images hardly better than by chance through W."""
    auc = label_auc(model, classifier, dataset, cache)
    mean = float(np.mean(list(auc.values()))) if auc else 1.0
    if mean < LEAST_AUC:
        raise UserError(
            f"teacher: it finds the labels of its own images hardly better than by chance (mean AUC {mean:.3f}, at "
            f"least {LEAST_AUC} expected): label names, colour order or normalisation do not fit the data; run "
            "`facedistill check TEACHER --data D`, or set check.own_class=0 to train anyway"
        )

"""Before each epoch, tell the terms that ask how far the student is behind its teachers on the hold-out."""

import numpy as np
import torch

from facedistill import parallel
from facedistill.data import Dataset
from facedistill.errors import UsageError
from facedistill.evaluation import multi_label
from facedistill.files import cache_dir
from facedistill.head import Classifier
from facedistill.models import Model, embed_dataset
from facedistill.training.assemble import Assembly


def pace_terms(assembly: Assembly) -> None:
    """Give each paced term how good the student and its teacher are on the classes or labels that the teacher knows.

    The measure is the accuracy over classes, the mean average precision over labels.

    It depends on the student's weights alone, so a run that resumes here goes on in the same way.

    Raises:
        UsageError: nothing is held out, or other classes than those of the training.
    """
    paced = {key: wired for key, wired in assembly.method.wired.items() if wired.term.paced}
    held_out = assembly.held_out
    for key, wired in paced.items():
        known = assembly.method.teachers[wired.teacher].classifier
        weight = assembly.method.weight
        assert known is not None and weight is not None
        if held_out is None or not set(known.class_names) & set(held_out.targets):
            raise UsageError(
                f"method.terms.{key}.balance=self_paced: the student is measured on held-out images of the teacher's "
                "classes or labels; set data.hold_out (and for classes task=classification, which holds out images of "
                "each), or another balance"
            )
        found = torch.zeros(1, 2)
        if parallel.rank() == 0:  # the others wait: statistics of their networks differ
            own = weight.trained().select(known.class_names)
            measure = _accuracy if held_out.multi_hot is None else _precision
            student = measure(assembly.method.student, own, held_out, cached=False)
            found[0] = torch.tensor([student, measure(assembly.models[wired.teacher], known, held_out, cached=True)])
        student, teacher = parallel.gather(found.to(parallel.device()))[0].tolist()
        wired.term.pace(student, teacher)


def _accuracy(model: Model, classifier: Classifier, dataset: Dataset, cached: bool) -> float:
    """Return the share of the images of the classifier's classes that are nearest to their own row."""
    place = {name: row for row, name in enumerate(classifier.class_names)}
    part = dataset.with_labels([name for name in dataset.class_names if name in place])
    table = embed_dataset(model, part, flips=False, cache=cache_dir() / "embeddings" if cached else None)
    rows = np.array([place[name] for name in table.class_names])[table.labels]
    found = (table.fused("none") @ classifier.weight.cpu().numpy().T).argmax(1)
    return float((found == rows).mean())


def _precision(model: Model, classifier: Classifier, dataset: Dataset, cached: bool) -> float:
    """Return the mean average precision of the labels that the classifier knows; 0 if no image has one."""
    names = [name for name in dataset.label_names if name in set(classifier.class_names)]
    part = dataset.with_labels(names)
    if not part.target_counts.any():
        return 0.0
    table = embed_dataset(model, part, flips=False, cache=cache_dir() / "embeddings" if cached else None)
    hot = part.labels_of(table.keys, names)
    cosines = table.fused("none") @ classifier.select(names).weight.cpu().numpy().T
    return multi_label(np.asarray(cosines), hot, names, sure=False, resamples=0).figures["map"].value

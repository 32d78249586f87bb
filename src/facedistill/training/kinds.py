"""Images, or vectors of features: do the networks and the view take what the data holds?"""

from collections.abc import Mapping

from facedistill.backbones import takes_features
from facedistill.data import Dataset, View
from facedistill.errors import UsageError, UserError
from facedistill.models import Model
from facedistill.recipe import Recipe
from facedistill.training.method import WiredTerm


def require_kind(
    recipe: Recipe, view: View, terms: Mapping[str, WiredTerm], models: Mapping[str, Model], train: Dataset
) -> None:
    """Raise an error, before anything long begins, if student, terms, teachers or view take another kind of samples.

    Raises:
        UsageError: the student's network or its input size, a term of stage maps, or the view. UserError: a teacher
            that has a network.
    """
    features, student, path = train.source.features, recipe.student, train.source.path
    found = "images" if features is None else f"vectors of {features} features"
    if takes_features(student.backbone) != (features is not None):
        instead = "choose a network of images" if features is None else "set student.backbone=mlp"
        raise UsageError(f"student.backbone={student.backbone} cannot take {path}, which holds {found}; {instead}")
    if features is None:
        fitting = {name: not model.takes_features for name, model in models.items()}
    else:
        if student.input_size != features:
            raise UsageError(f"student.input_size={student.input_size}: {path} holds {found}; set {features}")
        for key, wired in terms.items():
            if "features" in wired.term.needs:
                raise UsageError(f"term '{key}' compares stage maps of images; {path} holds {found}: leave it out")
        if not view.takes_features:
            raise UsageError(f"method.view.kind: {type(view).__name__} changes images; {path} holds {found}; set same")
        fitting = {
            name: model.backbone is None or (model.takes_features and model.input_size == features)
            for name, model in models.items()
        }
    for name, fits in fitting.items():
        if not fits:
            raise UserError(
                f"teacher '{name}' takes other samples than {found}, which {path} holds; train it on such data, or "
                "import its embeddings of these samples as a teacher"
            )

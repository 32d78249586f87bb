__version__: str

from .backbones import Backbone as Backbone, create_backbone as create_backbone
from .check import check_student as check_student, check_teacher as check_teacher
from .data import (
    Batch as Batch,
    Dataset as Dataset,
    Embeddings as Embeddings,
    Output as Output,
    Source as Source,
    open_dataset as open_dataset,
    open_source as open_source,
)
from .errors import UsageError as UsageError, UserError as UserError
from .evaluation import evaluate as evaluate
from .files import fingerprint as fingerprint
from .head import (
    AdaFace as AdaFace,
    ArcFace as ArcFace,
    Classifier as Classifier,
    CombinedMargin as CombinedMargin,
    CosFace as CosFace,
    CurricularFace as CurricularFace,
    FrozenMarginSoftmax as FrozenMarginSoftmax,
    Margin as Margin,
    SphereFace as SphereFace,
    centres as centres,
    fit_classifier as fit_classifier,
    frozen_margin_softmax as frozen_margin_softmax,
    instances as instances,
    margin_softmax as margin_softmax,
)
from .models import (
    InputSpec as InputSpec,
    Model as Model,
    embed_dataset as embed_dataset,
    import_model as import_model,
    load_model as load_model,
    save_model as save_model,
)
from .recipe import Recipe as Recipe, load_recipe as load_recipe, make_recipe as make_recipe
from .terms import Relation as Relation, Term as Term
from .training import train as train

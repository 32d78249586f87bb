__version__: str

from .backbones import Backbone as Backbone, create_backbone as create_backbone
from .check import check_student as check_student, check_teacher as check_teacher
from .cleaning import clean as clean
from .data import (
    Batch as Batch,
    Dataset as Dataset,
    Embeddings as Embeddings,
    ImageView as ImageView,
    Output as Output,
    Sampler as Sampler,
    Source as Source,
    TeacherSees as TeacherSees,
    View as View,
    open_dataset as open_dataset,
    open_source as open_source,
)
from .demo import with_demo_teachers as with_demo_teachers
from .errors import UsageError as UsageError, UserError as UserError
from .evaluation import (
    EvaluationOptions as EvaluationOptions,
    Figure as Figure,
    Protocol as Protocol,
    evaluate as evaluate,
)
from .export import bench as bench, export_model as export_model
from .files import fingerprint as fingerprint
from .gallery import Gallery as Gallery
from .head import (
    AdaFace as AdaFace,
    ArcFace as ArcFace,
    Classifier as Classifier,
    CombinedMargin as CombinedMargin,
    CosFace as CosFace,
    CurricularFace as CurricularFace,
    FrozenMarginSoftmax as FrozenMarginSoftmax,
    Given as Given,
    Margin as Margin,
    Rows as Rows,
    SphereFace as SphereFace,
    Start as Start,
    centres as centres,
    fit_classifier as fit_classifier,
    frozen_margin_softmax as frozen_margin_softmax,
    instances as instances,
    load_rows as load_rows,
    margin_softmax as margin_softmax,
    quantise as quantise,
    save_rows as save_rows,
)
from .models import (
    InputSpec as InputSpec,
    Model as Model,
    embed_dataset as embed_dataset,
    fuse_models as fuse_models,
    import_model as import_model,
    load_model as load_model,
    push_model as push_model,
    save_model as save_model,
)
from .preparation import prepare as prepare
from .recipe import Recipe as Recipe, load_recipe as load_recipe, make_recipe as make_recipe
from .results import (
    load_evaluations as load_evaluations,
    render_comparison as render_comparison,
    render_table as render_table,
    write_report as write_report,
)
from .terms import Relation as Relation, Term as Term
from .training import (
    distillation_recipe as distillation_recipe,
    save_subsets as save_subsets,
    similar_subsets as similar_subsets,
    sweep as sweep,
    train as train,
)

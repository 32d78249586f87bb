from .calibration import thresholds_of as thresholds_of
from .figures import (
    Count as Count,
    Declaration as Declaration,
    Figure as Figure,
    Line as Line,
    Target as Target,
    estimate as estimate,
)
from .measurement import Measurement as Measurement, Values as Values
from .metrics import far_key as far_key
from .options import EvaluationOptions as EvaluationOptions, Resolution as Resolution
from .paired import compatibility as compatibility, update_gain as update_gain
from .protocols import (
    PROTOCOLS as PROTOCOLS,
    TASKS as TASKS,
    Protocol as Protocol,
    declaration as declaration,
    protocols_of_task as protocols_of_task,
)
from .protocols.all_pairs import all_pairs as all_pairs
from .protocols.multi_label import multi_label as multi_label
from .run import evaluate as evaluate, faces as faces, protocols_of as protocols_of
from .sets import EvaluationSet as EvaluationSet, Side as Side, open_sets as open_sets
from .shots import by_shots as by_shots
from .statistics import (
    Estimate as Estimate,
    draws as draws,
    paired_difference as paired_difference,
    resampled_mean as resampled_mean,
)
from .verification import Verification as Verification

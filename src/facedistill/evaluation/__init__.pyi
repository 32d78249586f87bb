from .calibration import thresholds_of as thresholds_of
from .protocols.all_pairs import all_pairs as all_pairs
from .run import evaluate as evaluate, faces as faces
from .sets import EvaluationSet as EvaluationSet, Resolution as Resolution, open_sets as open_sets
from .statistics import Estimate as Estimate, draws as draws, paired_difference as paired_difference

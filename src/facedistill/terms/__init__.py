"""The registry of terms. A name with a colon, `package.module:Class`, is imported."""

from typing import Any

from facedistill.recipe import build, find
from facedistill.terms.aml import AML
from facedistill.terms.asymmetric import Asymmetric
from facedistill.terms.attention_transfer import AttentionTransfer
from facedistill.terms.balanced_softmax import BalancedSoftmax
from facedistill.terms.bce import BCE
from facedistill.terms.cckd import CCKD
from facedistill.terms.class_balanced import ClassBalanced
from facedistill.terms.class_balanced_bce import ClassBalancedBCE
from facedistill.terms.csd import CSD
from facedistill.terms.d3still import D3still
from facedistill.terms.darkrank import DarkRank
from facedistill.terms.distribution_balanced import DistributionBalanced
from facedistill.terms.ekd import EKD
from facedistill.terms.embedding_l2 import EmbeddingL2
from facedistill.terms.fitnet import FitNet
from facedistill.terms.focal import Focal
from facedistill.terms.focal_bce import FocalBCE
from facedistill.terms.gkd import GKD
from facedistill.terms.influence import Influence
from facedistill.terms.lce import LCE
from facedistill.terms.ldam import LDAM
from facedistill.terms.margin_distillation import MarginDistillation
from facedistill.terms.margin_softmax import MarginSoftmax
from facedistill.terms.mixbct import MixBCT
from facedistill.terms.multi_label import MultiLabel
from facedistill.terms.octuplet import Octuplet
from facedistill.terms.pkt import PKT
from facedistill.terms.raml import RAML
from facedistill.terms.residual import Residual
from facedistill.terms.rkd import RKD
from facedistill.terms.rop import ROP
from facedistill.terms.rskd import RSKD
from facedistill.terms.shrinkteanet import ShrinkTeaNet
from facedistill.terms.similarity_preserving import SimilarityPreserving
from facedistill.terms.soft_targets import SoftTargets
from facedistill.terms.subset_softmax import SubsetSoftmax
from facedistill.terms.term import Relation, Term
from facedistill.terms.triplet_distillation import TripletDistillation

TERMS: dict[str, type[Term]] = {
    "margin_softmax": MarginSoftmax,
    "embedding_l2": EmbeddingL2,
    "soft_targets": SoftTargets,
    "fitnet": FitNet,
    "attention_transfer": AttentionTransfer,
    "shrinkteanet": ShrinkTeaNet,
    "triplet_distillation": TripletDistillation,
    "similarity_preserving": SimilarityPreserving,
    "rkd": RKD,
    "darkrank": DarkRank,
    "pkt": PKT,
    "cckd": CCKD,
    "ekd": EKD,
    "csd": CSD,
    "raml": RAML,
    "rop": ROP,
    "d3still": D3still,
    "aml": AML,
    "gkd": GKD,
    "margin_distillation": MarginDistillation,
    "influence": Influence,
    "lce": LCE,
    "mixbct": MixBCT,
    "residual": Residual,
    "octuplet": Octuplet,
    "class_balanced": ClassBalanced,
    "focal": Focal,
    "balanced_softmax": BalancedSoftmax,
    "ldam": LDAM,
    "bce": BCE,
    "class_balanced_bce": ClassBalancedBCE,
    "focal_bce": FocalBCE,
    "asymmetric": Asymmetric,
    "distribution_balanced": DistributionBalanced,
    "rskd": RSKD,
    "subset_softmax": SubsetSoftmax,
}


def make_term(name: str, options: dict[str, Any]) -> Term:
    """Build the term `name` with `options`. Raises UsageError for an unknown term or an option that does not fit."""
    return build(find(TERMS, name, "term", Term), options, f"term '{name}'")


__all__ = ["TERMS", "EmbeddingL2", "MarginSoftmax", "MultiLabel", "Relation", "SoftTargets", "Term", "make_term"]

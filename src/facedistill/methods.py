"""The method table: a method is a named row of terms, where W starts and what moves it, a sampler and a view."""

from facedistill.recipe import ClassifierSpec, MethodSpec, SamplerSpec, TermSpec, ViewSpec

LEARNED = ClassifierSpec("random", "gradient")
INHERITED = ClassifierSpec("teacher", "nothing")
SOFTMAX = {"margin_softmax": TermSpec()}
# The best of docs/comparison.md, as it was tuned there.
INSTANCES_L2 = {
    "margin_softmax": TermSpec(options={"margin": "arcface", "margin_options": {"size": 0.35}, "scale": 32}),
    "embedding_l2": TermSpec(64),
}
# A mixed image has two labels, so there is no single class to keep a margin to.
STKD = {
    "margin_softmax": TermSpec(options={"margin": "cosface", "margin_options": {"size": 0.0}}),
    "soft_targets": TermSpec(),
}
LONG_TAIL = ("class_balanced", "focal", "balanced_softmax", "ldam")
SEVERAL_LABELS = ("bce", "class_balanced_bce", "focal_bce", "asymmetric", "distribution_balanced")
PK = SamplerSpec("pk")


def _rival(name: str, weight: float = 1.0, sampler: SamplerSpec | None = None) -> MethodSpec:
    """Return a row of the margin softmax and the term called `name`, at its published weight if there is one."""
    return MethodSpec(name, LEARNED, {**SOFTMAX, name: TermSpec(weight)}, sampler or SamplerSpec())


METHODS: dict[str, MethodSpec] = {
    row.name: row
    for row in [
        MethodSpec("scratch", LEARNED, SOFTMAX),
        MethodSpec("proxylesskd", INHERITED, SOFTMAX),
        MethodSpec("proxylesskd_finetune", ClassifierSpec("teacher", "gradient"), SOFTMAX),
        MethodSpec("proxylesskd_instances_l2", ClassifierSpec("instances", "nothing"), INSTANCES_L2),
        MethodSpec("l2kd", ClassifierSpec(), {"embedding_l2": TermSpec()}),
        MethodSpec("margin_softmax_l2", LEARNED, {**SOFTMAX, "embedding_l2": TermSpec()}),
        MethodSpec("kd", LEARNED, {**SOFTMAX, "soft_targets": TermSpec()}),
        _rival("fitnet", 100),
        _rival("attention_transfer", 1000),
        _rival("shrinkteanet"),
        _rival("triplet_distillation", sampler=PK),
        _rival("similarity_preserving", 3000),
        _rival("rkd"),
        _rival("darkrank"),
        _rival("pkt", 469),
        _rival("cckd", 1000, PK),  # no weight is published; at 1 its gradient is 2,000 times below the softmax's
        _rival("ekd", sampler=PK),
        _rival("gkd"),
        # Made for matching a student's query with a teacher's gallery; as in their papers, there is no other loss.
        *(MethodSpec(name, ClassifierSpec(), {name: TermSpec()}) for name in ("csd", "raml", "rop", "d3still")),
        MethodSpec("aml", ClassifierSpec(), {"aml": TermSpec()}, PK),
        # 100 / d at the d = 128 of PocketNetS-128: the paper weights a mean over dimensions by 100.
        MethodSpec("pocketnet", LEARNED, {**SOFTMAX, "embedding_l2": TermSpec(0.78)}, teacher_epoch="same"),
        MethodSpec("stkd", LEARNED, STKD, view=ViewSpec("mixup")),
        MethodSpec("adadistill", ClassifierSpec("random", "teacher"), SOFTMAX),
        # Compatible with an old model, the recipe's teacher: its gallery stays.
        MethodSpec("backward_compatible", LEARNED, {**SOFTMAX, "influence": TermSpec()}),
        _rival("lce"),
        MethodSpec("mixbct", LEARNED, {"mixbct": TermSpec()}),
        # Its student is of two networks: the backbone `residual`.
        MethodSpec("residual", ClassifierSpec(), {"residual": TermSpec()}),
        # For a long tail: some classes have many images, most have few.
        *(MethodSpec(name, LEARNED, {name: TermSpec()}) for name in LONG_TAIL),
        *(MethodSpec(name, LEARNED, {name: TermSpec()}) for name in SEVERAL_LABELS),
        # A teacher for each subset of the labels: a recipe adds a term for every further one. 100 = T^2, which a binary
        # cross-entropy at temperature T divides the gradient by.
        MethodSpec("rskd", LEARNED, {"bce": TermSpec(), "rskd": TermSpec(100)}),
        # The same with inherited classifiers; a recipe adds a term for every further teacher.
        MethodSpec("proxylesskd_subsets", INHERITED, {"subset_softmax": TermSpec()}),
        MethodSpec("margin_distillation", INHERITED, {"margin_distillation": TermSpec()}),
    ]
}

"""The plan of the comparison on real faces: the methods, their trials and changes, and the order of the runs.

A row is called `METHOD`, or `METHOD, CHANGE`. A job is a run of one row with one teacher, setting and seed.
"""

from typing import Any

from comparison_store import Results

EPOCHS, SEEDS, HOLD_OUT = 14, (0, 1, 2), 0.1
STUDENT = {"backbone": "mobilefacenet", "options": {"width": 0.5}, "input_size": 64}
SCHEDULE = {"batch": 128, "warmup_epochs": 1, "decay": "cosine", "weight_decay": 5e-4, "clip": 5.0, "log_steps": 50}
SCALE = 32  # few identities; the same for every margin softmax here
Setting = dict[str, Any]
Job = tuple[str, str, Setting, int]  # row, teacher, setting, seed
# method -> three trials of the learning rate and the method's one main weight: the margin, or the weight of its term.
# Trials of four epochs (runs named trial-*, three per method too) had narrowed down the range of the first four.
TRIALS: dict[str, list[Setting]] = {
    "scratch": [{"lr": lr, "margin": m} for lr, m in ((0.1, 0.2), (0.3, 0.2), (0.3, 0.5))],
    "l2kd": [{"lr": lr} for lr in (0.3, 1.0, 3.0)],
    "proxylesskd_centres": [{"lr": lr, "margin": m} for lr, m in ((0.3, 0.2), (1.0, 0.2), (0.3, 0.5))],
    "proxylesskd_l2": [{"lr": 0.3, "l2": weight} for weight in (16.0, 64.0, 256.0)],
    "proxylesskd_instances": [{"lr": lr, "margin": m} for lr, m in ((0.3, 0.5), (1.0, 0.5), (0.3, 0.2))],
    "proxylesskd_instances_l2": [{"lr": lr, "l2": w} for lr, w in ((1.0, 16.0), (1.0, 64.0), (0.3, 64.0))],
    "margin_softmax_l2": [{"lr": 0.3, "weight": weight} for weight in (64.0, 256.0, 16.0)],
    "rkd": [{"lr": 0.1, "weight": weight} for weight in (1.0, 4.0, 16.0)],
    "cckd": [{"lr": 0.1, "weight": weight} for weight in (10.0, 100.0, 1000.0)],
    "adadistill": [{"lr": lr, "start": start} for lr, start in ((0.3, "random"), (0.3, "centres"), (0.1, "centres"))],
    "adadistill_l2": [{"lr": lr, "l2": w} for lr, w in ((0.3, 64.0), (1.0, 64.0), (1.0, 16.0))],  # as instances_l2
}
# Methods that need several images of a class in a batch.
PK = ["cckd", *(f"{name}, P x K" for name in ("scratch", "l2kd", "proxylesskd_centres"))]
ORTHOGONAL = "W orthogonal"
TWO = "proxylesskd_two_teachers"  # the easy one, in whose space the student lives, and the centred one
# One thing changed in a tuned row: overrides of its recipe.
CHANGES: dict[str, list[str]] = {
    "P x K": ["method.sampler.kind=pk"],
    "scale 16": ["method.terms.margin_softmax.scale=16"],
    "scale 64": ["method.terms.margin_softmax.scale=64"],
    "margin 0": ["method.terms.margin_softmax.margin_options.size=0"],
    "margin 0.2": ["method.terms.margin_softmax.margin_options.size=0.2"],
    "margin 0.35": ["method.terms.margin_softmax.margin_options.size=0.35"],
    "warm-up": ["method.terms.margin_softmax.margin_warmup=0.5"],
    "finetuned": ["method.classifier.moved_by=gradient"],
    "W random": ["method.classifier.start=random"],
    ORTHOGONAL: ["method.classifier.start=teacher"],
    "wide": ["student.options.width=1.0", "schedule.keep=epochs"],
    "64 dimensions": ["student.embedding_dim=64", "student.projection=true"],
}
# The margin if it is not tuned: for a learned W the one chosen for scratch, for AdaDistill the published one.
MARGINS = {"proxylesskd_l2": 0.35, "proxylesskd_instances_l2": 0.35, "adadistill": 0.45, "adadistill_l2": 0.45}
# Between one class per person and one class per image: every person becomes several classes.
PARTS = ("4 images a class", "2 images a class")
ABLATIONS = [*(change for change in CHANGES if change not in ("P x K", "wide")), *PARTS]
# Separate rows that differ from the class centres only in W: (row, settings of).
ALIKE = {
    "1 image a class (instances)": ("proxylesskd_instances", "proxylesskd_instances"),
    "W fitted": ("proxylesskd_fitted", "proxylesskd_centres"),
}
BEST = "proxylesskd_instances_l2"  # is it better than every rival?
# A student of full width is the teacher with a trained W, and with stored epochs and stage maps.
OWN = "margin_softmax_l2, wide"
# Fewer people, with the settings of all of them; one seed.
NUMBERS = ("200 identities", "600 identities")
PEOPLE = [
    (f"{name}, {number}", "easy", name)
    for number in NUMBERS
    for name in ("l2kd", "proxylesskd_centres", "proxylesskd_instances", "scratch")
]
# One seed, one setting, not tuned and not ranked: near the published weight, or less if that swamps the softmax.
OTHERS: dict[str, float] = {
    "kd": 1.0,
    "margin_distillation": 1.0,
    "shrinkteanet": 16.0,
    "triplet_distillation": 4.0,
    "similarity_preserving": 300.0,
    "darkrank": 1.0,
    "pkt": 469.0,
    "ekd": 1.0,
    "stkd": 1.0,
}
OWNED = {"pocketnet": 0.78, "fitnet": 1.0, "attention_transfer": 10.0}  # the same, of a teacher trained here
# (row, teacher, settings of): the fitted W takes those of the centres, another teacher those chosen with the easy one.
TUNED = [
    ("l2kd", "easy", "l2kd"),
    ("proxylesskd_centres", "easy", "proxylesskd_centres"),
    ("proxylesskd_l2", "easy", "proxylesskd_l2"),
    ("scratch", "easy", "scratch"),
    ("proxylesskd_fitted", "easy", "proxylesskd_centres"),
    *((name, "easy", name) for name in list(TRIALS)[4:]),
    *((row, "easy", row.partition(", ")[0]) for row in PK[1:]),
    ("l2kd", "centred", "l2kd"),
    ("proxylesskd_centres", "centred", "proxylesskd_centres"),
    ("proxylesskd_l2", "centred", "proxylesskd_l2"),
]
POINTERS = [  # of one seed
    ("proxylesskd_centres", "hard", "proxylesskd_centres"),
    *((name, "easy", name) for name in OTHERS),
    (TWO, "easy", "proxylesskd_centres"),
    (OWN, "easy", "margin_softmax_l2"),
    ("proxylesskd_trained", "own", "proxylesskd_centres"),
    ("proxylesskd_centres", "own", "proxylesskd_centres"),
    ("l2kd", "own", "l2kd"),
    *((name, "own", name) for name in OWNED),
]
FINALS = TUNED + POINTERS

INHERITS, OTHER = "ProxylessKD: W comes from the teacher and is frozen", "Other methods"
# The rows of the first page, all with three seeds and the easy teacher: group, name, and where W starts.
FIRST_PAGE = {
    "proxylesskd_centres": (INHERITS, "ProxylessKD", "class centres"),
    "proxylesskd_fitted": (INHERITS, "ProxylessKD", "fitted to embeddings"),
    "proxylesskd_instances": (INHERITS, "ProxylessKD", "one row per image"),
    "proxylesskd_l2": (INHERITS, "ProxylessKD + L2", "class centres"),
    "proxylesskd_instances_l2": (INHERITS, "ProxylessKD + L2", "one row per image"),
    "l2kd": (OTHER, "L2 to the teacher", "no W"),
    "margin_softmax_l2": (OTHER, "Margin softmax + L2", "random, trained"),
    "adadistill": (OTHER, "AdaDistill", "class centres, moved"),
    "adadistill_l2": (OTHER, "AdaDistill + L2", "class centres, moved"),
    "rkd": (OTHER, "RKD", "random, trained"),
    "cckd": (OTHER, "CCKD", "random, trained"),
    "scratch": (OTHER, "From scratch", "random, trained"),
}


def method_of(name: str, setting: Setting) -> dict[str, Any]:
    """Return the recipe's `method` for a row (`METHOD`, or `METHOD, CHANGE`) and its tuned setting."""
    name = name.partition(", ")[0]
    softmax = {
        "scale": SCALE,
        "margin": "arcface",
        "margin_options": {"size": setting.get("margin", MARGINS.get(name, 0.2))},
    }
    terms: dict[str, Any] = {"margin_softmax": softmax}
    if name == "l2kd":
        return {"name": "l2kd"}
    if name == "margin_distillation":
        return {"name": name, "classifier": {"start": "centres"}, "terms": {name: {"scale": SCALE}}}
    if "l2" in setting:
        terms["embedding_l2"] = {"weight": setting["l2"]}
    if name.startswith("adadistill"):
        return {"name": "adadistill", "classifier": {"start": setting.get("start", "centres")}, "terms": terms}
    if name.startswith("proxylesskd"):
        start = next((start for start in ("fitted", "instances") if start in name), "centres")
        start = "teacher" if name.endswith("_trained") else start
        if name == TWO:
            terms["second"] = {"term": "margin_softmax", "teacher": "second", **softmax}
        return {"name": "proxylesskd", "classifier": {"start": start}, "terms": terms}
    if name == "stkd":  # two labels an image: no margin
        terms["margin_softmax"] = {"scale": SCALE}
    if name in ("kd", "stkd"):
        terms["soft_targets"] = {"weight": setting["weight"], "scale": SCALE}
    elif name != "scratch":
        terms["embedding_l2" if name in ("margin_softmax_l2", "pocketnet") else name] = {"weight": setting["weight"]}
    return {"name": name, "terms": terms}


def setting_of(setting: Setting, between: str = " ", after: str = ", ") -> str:
    return after.join(f"{k}{between}{v if isinstance(v, str) else f'{v:g}'}" for k, v in setting.items())


def run_name(name: str, teacher: str, setting: Setting, seed: int) -> str:
    label = setting_of(setting, "", "_")
    row = name.replace(", ", "-").replace(" ", "")
    return f"final-{teacher}-{row}-{label}-s{seed}"


def jobs(results: Results) -> list[Job]:
    """Return the jobs that the results so far ask for, in an order that leaves few rows empty if stopped early.

    A method's trials come first, then its further seeds with the chosen setting. Among the other rows, all are run with
    one seed before the tuned ones get further seeds.
    """
    found: list[Job] = []
    for name, settings in TRIALS.items():
        found += [(name, "easy", setting, SEEDS[0]) for setting in settings]
        setting = chosen(results, name)
        found += [(name, "easy", setting, seed) for seed in SEEDS if setting is not None]
    changes = [(f"proxylesskd_centres, {change}", "easy", "proxylesskd_centres") for change in ABLATIONS]
    one = [*PEOPLE, *changes, *POINTERS]
    rows = [(row, SEEDS[0]) for row in [*TUNED, *one]] + [(row, seed) for seed in SEEDS[1:] for row in TUNED]
    settings_of = {tuned: chosen(results, tuned) for (_, _, tuned), _ in rows}
    found += [
        (name, teacher, setting, seed) for (name, teacher, of), seed in rows if (setting := settings_of[of]) is not None
    ]
    return found


def chosen(results: Results, method: str) -> Setting | None:
    """Return the setting with the best trial; None before all of the method's trials are done."""
    if method in OTHERS or method in OWNED:
        return {"lr": 0.1, "weight": (OTHERS | OWNED)[method]}
    names = [run_name(method, "easy", setting, SEEDS[0]) for setting in TRIALS[method]]
    if not all(name in results for name in names):
        return None
    scores = [score(results[name]) for name in names]
    return TRIALS[method][scores.index(max(scores))]


def score(result: dict[str, Any]) -> float:
    """Return the figure that tuning maximises: student-student TAR at FAR 1e-3 over all pairs of the hold-out."""
    for r in result["evaluation"]["results"]:
        if r["set"] == "hold-out" and r["probe"] == r["gallery"] == "student":
            return r["tar_at_far"]["1e-3"]["value"]
    raise KeyError("hold-out")


def stored(results: Results, name: str, teacher: str, settings_of: str) -> dict[str, dict[str, Any]]:
    """Return the results of one row by run, in the order of seeds; none before its settings are chosen."""
    setting = chosen(results, settings_of)
    names = [] if setting is None else [run_name(name, teacher, setting, seed) for seed in SEEDS]
    return {name: results[name] for name in names if name in results}


def paired(results: Results) -> set[str]:
    """Return the runs whose resamples the tables need: those of the rows that have several seeds."""
    return {name for row in TUNED for name in stored(results, *row)}


def own_teacher(results: Results) -> str:
    """Return the run of the full-width student, which is used as a teacher afterwards."""
    return run_name(OWN, "easy", chosen(results, "margin_softmax_l2") or {}, SEEDS[0])

"""The demo on synthetic faces: train a teacher and three students, and print one table."""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from facedistill.data import open_source, open_union
from facedistill.data.sources import draw_pairs, save_verification
from facedistill.data.synthetic import contact_sheet
from facedistill.errors import UsageError, closest
from facedistill.evaluation import open_sets
from facedistill.files import atomic_write, cache_dir, fingerprint, in_use
from facedistill.progress import say
from facedistill.recipe import Recipe, TeacherSpec, dump_recipe, make_recipe
from facedistill.results import markdown
from facedistill.run import Busy
from facedistill.training import missing_teachers, resolve, train, wire_terms

DEMO_SEED = 1
UNSEEN = 1_000_000  # the first identity of the evaluation; training counts from 0
BATCH = 64
DEMO_SOFTMAX = {"margin": "cosface", "margin_options": {"size": 0.35}, "scale": 32}
DEMO_METHODS: dict[str, dict[str, Any]] = {
    "proxylesskd": {"name": "proxylesskd", "terms": {"margin_softmax": DEMO_SOFTMAX}},
    "l2kd": {"name": "l2kd"},
    "scratch": {"name": "scratch", "terms": {"margin_softmax": DEMO_SOFTMAX}},
}
LEARNING_RATES = {"teacher": 0.2, "proxylesskd": 0.2, "l2kd": 0.3, "scratch": 0.2}
RESULT_FILES = ("table.md", "results.json")


@dataclass(frozen=True)
class Scale:
    """The sizes of a demo: people and photographs to train on, networks, epochs, evaluation."""

    identities: int = 400
    teacher_images: int = 16
    teacher_width: float = 0.5
    teacher_epochs: int = 10
    student_images: int = 8
    student_width: float = 0.25
    student_epochs: int = 5
    size: int = 48
    embedding_dim: int = 128
    unseen_identities: int = 150
    unseen_images: int = 12
    pairs: int = 6000

    def faces(self, images: int) -> str:
        """Return the training data: the first `images` photographs of every identity."""
        return f"synthetic:identities={self.identities},images={images},size={self.size},seed={DEMO_SEED}"

    @property
    def unseen(self) -> str:
        """The people of the evaluation."""
        people = f"identities={self.unseen_identities},images={self.unseen_images},size={self.size}"
        return f"synthetic:{people},seed={DEMO_SEED},first={UNSEEN}"


FULL = Scale()
QUICK = Scale(identities=200, teacher_width=0.25, teacher_epochs=8, student_epochs=4)


def run_demo(out: str | Path, quick: bool = False) -> dict[str, Any]:
    """Run the demo into the folder `out`, print its table, and return what results.json holds.

    Idempotent: finished work is skipped, and interrupted runs resume.

    Raises:
        UsageError: `out` holds something other than a demo, or a demo of another scale.
    """
    return demo_at(QUICK if quick else FULL, out)


def demo_at(scale: Scale, out: str | Path) -> dict[str, Any]:
    """Run the demo at any scale, see `run_demo`."""
    folder, began = Path(out).resolve(), time.perf_counter()
    _claim(folder)
    _draw_faces(scale, folder)
    runs = ["teacher", *DEMO_METHODS]
    for place, name in enumerate(runs, 1):
        say(f"{place} of {len(runs)}: {_headline(name, scale)}")
        train(recipe_of(name, scale, folder), folder / name)
    evaluations = {name: json.loads((folder / name / "evaluation.json").read_text("utf-8")) for name in runs}
    result = {
        "schema": 1,
        "seed": DEMO_SEED,
        "settings": {**asdict(scale), "batch": BATCH, "margin_softmax": DEMO_SOFTMAX, "learning_rates": LEARNING_RATES},
        "data": {"teacher": scale.faces(scale.teacher_images), "students": scale.faces(scale.student_images)}
        | {"evaluation": scale.unseen},
        "runs": evaluations,
    }
    text = render(evaluations, scale)
    for file, content in zip(RESULT_FILES, (text, json.dumps(result, indent=1) + "\n"), strict=True):
        _write(folder / file, content)
    print(text)
    print(f"{folder / 'README.md'} says what else is there ({time.perf_counter() - began:.0f} s)")
    return result


def demo_teacher(cache: Path | None = None) -> Path:
    """Return the run of the demo's teacher, trained on the first call (minutes) and kept in the cache folder.

    It is the teacher of a recipe that names none; its classes are the first 400 synthetic identities of seed 1.
    """
    recipe, run = _demo_teacher(cache)
    if _is_finished(run):
        say(f"teacher: the demo's, {run}")
        return run
    say(f"teacher: the recipe names none; training the demo's once (minutes), kept in {run}")
    while True:
        try:
            return train(recipe, run)
        except Busy:  # another process is training it
            time.sleep(1)


def _demo_teacher(cache: Path | None = None) -> tuple[Recipe, Path]:
    recipe = recipe_of("teacher", FULL)
    return recipe, (cache or cache_dir()) / f"demo-teacher-{fingerprint(dump_recipe(recipe))}"


def _is_finished(run: Path) -> bool:
    return (run / "evaluation.json").exists()


def recipe_of(name: str, scale: Scale, folder: Path | None = None) -> Recipe:
    """Return the recipe of one run of the demo in `folder`; without `folder`, the run is not evaluated."""
    teacher = name == "teacher"
    images, epochs, width = (
        (scale.teacher_images, scale.teacher_epochs, scale.teacher_width)
        if teacher
        else (scale.student_images, scale.student_epochs, scale.student_width)
    )
    return make_recipe(
        {
            "data": {"train": scale.faces(images)},
            "student": {
                "backbone": "mobilefacenet",
                "options": {"width": width},
                "input_size": scale.size,
                "embedding_dim": scale.embedding_dim,
            },
            "teachers": {} if teacher else {"teacher": str(folder / "teacher" if folder else "teacher")},
            "method": DEMO_METHODS["scratch" if teacher else name],
            "schedule": {
                "epochs": epochs,
                "batch": BATCH,
                "lr": LEARNING_RATES[name],
                "warmup_epochs": round(0.15 * epochs, 2),
            },
            "evaluation": {"sets": [str(folder / "unseen.bin")] if folder else []},
            # Not the teacher's seed: two networks with the same initial weights are related without any distillation.
            "seed": DEMO_SEED if teacher else DEMO_SEED + 1,
        }
    )


def render(evaluations: dict[str, dict[str, Any]], scale: Scale) -> str:
    """Return the demo's table from the evaluation of every run, in the order of the runs."""
    rows = []
    for run, evaluation in evaluations.items():
        name = run if run == "teacher" else evaluation["method"]
        by_protocol = {(r["protocol"], r["probe"], r["gallery"]): r for r in evaluation["results"]}
        model = evaluation["models"]["student"]
        for gallery in ("student", "teacher") if run != "teacher" else ("student",):
            rows.append(
                [
                    name,
                    "itself" if gallery == "student" else gallery,
                    f"{model['parameters'] / 1e6:.2f} M",
                    f"{model['macs'] / 1e6:.1f} M",
                    *_figures(*(by_protocol[p, "student", gallery] for p in ("pairs", "all-pairs"))),
                ]
            )
    header = ["probe", "gallery", "parameters", "MACs", "accuracy", "TAR at FAR 1e-2", "1e-3", "EER", "in the field"]
    return f"""\
{scale.unseen_identities} people whom no network has seen, {scale.unseen_images} photographs each; rates in %, 95%
intervals in brackets. Rows in the order they were run; one seed.

{markdown(header, rows)}
Accuracy: {scale.pairs:,} pairs, 10 folds. TAR, EER: every photograph against every other, both directions where a
student probes the teacher's gallery. In the field: FAR and TAR at the threshold that gives the teacher itself a FAR
of 1e-2. Parameters and MACs are the probe's.
"""


def _figures(pairs: dict[str, Any], everyone: dict[str, Any]) -> list[str]:
    tars = everyone["tar_at_far"]
    cells = [f"{100 * tars[far]['value']:.1f}" if far in tars else "" for far in ("1e-2", "1e-3")]
    if "1e-2" in tars and "ci95" in tars["1e-2"]:
        cells[0] += " [{:.1f}, {:.1f}]".format(*(100 * x for x in tars["1e-2"]["ci95"]))
    field = everyone.get("at_gallery_threshold", {}).get("1e-2")
    return [
        f"{100 * pairs['accuracy']:.1f}",
        *cells,
        f"{100 * everyone['eer']:.1f}",
        f"FAR {100 * field['far']:.2f}, TAR {100 * field['tar']:.1f}" if field else "",
    ]


def _headline(name: str, scale: Scale) -> str:
    if name == "teacher":
        what, images, width, epochs = "teacher", scale.teacher_images, scale.teacher_width, scale.teacher_epochs
    else:
        what, images, width, epochs = (
            f"student by {name}",
            scale.student_images,
            scale.student_width,
            scale.student_epochs,
        )
    return f"{what}: {scale.identities} people x {images} photographs, MobileFaceNet of width {width}, {epochs} epochs"


TITLE = "# A run of `facedistill demo`\n"
README = f"""{TITLE}
A teacher and three students, all trained here on synthetic faces, and their results on people they have never seen.
The same command on this folder makes only what is missing.

| file | what it is |
| --- | --- |
| faces.png | people of the training data, one per row, as small as the networks see them |
| table.md | the table that was printed |
| results.json | every figure of every run, with seed and settings |
| unseen.bin, unseen_bin_names.txt | the pairs of the evaluation in the field's format, and the person on each image |
| teacher/ | the teacher's run |
| proxylesskd/ | the student that inherits the teacher's classifier, frozen |
| l2kd/ | the student that imitates the teacher's embeddings |
| scratch/ | the same student without a teacher, with its own classifier and its own space: the control |

In a run: `recipe.yaml` (everything that was set), `log.jsonl`, `model/` (the model folder), `evaluation.json`.
The students share data, order, network and epochs; they have fewer photographs, fewer epochs and a narrower network
than the teacher.

The recipes hold the path of this folder. If you move it, you can read it and use its models, but not resume its runs.

Next steps, in this folder:

    facedistill show proxylesskd
    facedistill evaluate proxylesskd --on unseen.bin --against teacher
    facedistill train teacher/recipe.yaml --out longer schedule.epochs=20
"""


def _claim(folder: Path) -> None:
    """Write the README. Raises UsageError if `folder` holds something other than a demo."""
    readme = folder / "README.md"
    if in_use(folder):
        if not readme.is_file() or not readme.read_text("utf-8", errors="replace").startswith(TITLE):
            raise UsageError(f"{folder} exists and holds no demo; choose another --out")
    elif folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another --out")
    _write(readme, README)


def _draw_faces(scale: Scale, folder: Path) -> None:
    """Make the contact sheet and the evaluation's pairs."""
    if not (folder / "faces.png").exists():
        with atomic_write(folder / "faces.png") as temporary:
            contact_sheet(open_source(scale.faces(scale.teacher_images)), images=12).save(temporary)
    if not (folder / "unseen.bin").exists():
        say(f"drawing {scale.unseen_identities} people for the evaluation")
        save_verification(draw_pairs(open_source(scale.unseen), scale.pairs, DEMO_SEED), folder / "unseen.bin")


def _write(file: Path, text: str) -> None:
    if not file.exists() or file.read_text("utf-8") != text:
        with atomic_write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")


def with_demo_teachers(recipe: Recipe) -> Recipe:
    """Return the recipe with the demo's teacher for each teacher that its method needs and the recipe lacks.

    Raises:
        UsageError: the recipe names other teachers than its method needs, or needs one that knows labels.
        UserError: the recipe's data, or a set of its evaluation, cannot be opened.
    """
    missing = missing_teachers(recipe)
    if not missing:
        return recipe
    if given := list(recipe.teachers):
        raise UsageError(
            f"teachers.{given[0]}{closest(given[0], missing)}: method {recipe.method.name} also needs "
            f"{', '.join(missing)}; the recipe has: {', '.join(given)}"
        )
    if not all(wired.term.takes_one for wired in wire_terms(resolve(recipe.method)).values()):
        raise UsageError(
            f"method {recipe.method.name} needs a teacher that knows labels, and the demo's knows people; "
            "train one, `facedistill train bce --out labels`, and add teacher=labels"
        )
    if not _is_finished(_demo_teacher()[1]):  # what cannot be opened fails before minutes of training, not after
        data = recipe.data
        open_union(data.sets, data.columns, data.classes, data.weights)
        open_sets(recipe.evaluation.sets)
    return replace(recipe, teachers={name: TeacherSpec(str(demo_teacher())) for name in missing})

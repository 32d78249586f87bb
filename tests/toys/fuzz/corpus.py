"""One small valid folder of every format that the program reads, and how the program reads it to the last byte.

A new format is one function that makes its files and one that reads them, and a row of FORMATS.
"""

import gzip
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

import facedistill as fd
from facedistill.backbones import create_backbone
from facedistill.cleaning.findings import decide
from facedistill.data import Dataset, Embeddings, open_dataset
from facedistill.data.decode import decode, reduced
from facedistill.data.sources.selection import save_selection
from facedistill.data.sources.verification import draw_pairs, save_verification
from facedistill.evaluation import open_sets
from facedistill.head import Classifier, Rows
from facedistill.head.nearest import cached_nearest
from facedistill.models import FACTS, Facts, Input, Model, embed_blocks, embed_dataset, facts_of
from facedistill.models.folder import read_names
from facedistill.preparation.detector import Detector
from facedistill.preparation.journal import Journal, Row
from facedistill.preparation.landmarks import read_landmarks
from facedistill.recipe import dump_recipe, load_recipe, make_recipe
from facedistill.results import load_evaluations, load_logs, render_comparison, write_comparison
from facedistill.run import claim_run, latest_checkpoint, read_log, save_checkpoint
from facedistill.training import read_subsets
from facedistill.training.resume import written_out

SIZE, DIM = 32, 8


@dataclass(frozen=True)
class Format:
    """
    Attributes:
        make: writes valid files into an empty folder. read: reads them all, and returns what was read.
        files: patterns of those that are damaged.
        checked: the files carry a checksum: a damaged one is "refused", or "made anew" if it is a cache; "" without.
        weight: how many mutants of it are read for one of the slowest.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    files: tuple[str, ...]
    checked: Literal["", "refused", "made anew"] = ""
    weight: int = 20


def photo(seed: int, form: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """A small image file of smooth colours."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BILINEAR).convert(mode)
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def _dataset(data: Dataset) -> list[Any]:
    """All of a data set: names, labels, pixels."""
    data.max_unreadable = 1.0
    batch = data.batch(range(len(data)))
    return [data.keys, data.class_names, data.labels, batch.images, batch.unreadable, data.fingerprint]


def _data(name: str = "", **options: Any) -> Callable[[Path], Any]:
    return lambda folder: _dataset(open_dataset(folder / name, **options))


def _sets(name: str = "") -> Callable[[Path], Any]:
    """All that an evaluation reads of a set."""

    def read(folder: Path) -> Any:
        found: list[Any] = []
        for one in open_sets([folder / name]).values():
            found += [part for data in one.parts.values() for part in _dataset(data)]
            if source := getattr(one, "source", None):
                found += [*source.pairs(), *source.galleries(), *source.probes()]
            elif pairs := getattr(one, "pair_list", None):
                found += [pairs.pairs, pairs.same, pairs.identities]
        return found

    return read


def _folder(folder: Path) -> Path:
    for person in ("ann", "bob", "é"):
        (folder / person).mkdir(parents=True)
        for i in range(2):
            (folder / person / f"{i}.jpg").write_bytes(photo(10 * ord(person[0]) + i))
    return folder


def _bin(folder: Path) -> None:
    save_verification(draw_pairs(fd.open_source(str(_folder(folder / "faces"))), 6, 1), folder / "set.bin")


def _bin_of_numpy(folder: Path) -> None:
    """As insightface's own script writes one: numpy arrays of bytes, numpy bools."""
    images = [np.frombuffer(photo(i), np.uint8) for i in range(4)]
    (folder / "set.bin").write_bytes(pickle.dumps((images, [np.True_, np.False_]), protocol=2))


def _recordio(folder: Path) -> None:
    """dmlc-core's RecordIO, by its definition."""
    pack = [(0, struct.pack("<IfQQ2f", 2, 0, 0, 0, 5, 7))]
    pack += [(i, struct.pack("<IfQQ", 0, (i - 1) // 2, i, 0) + photo(i)) for i in range(1, 5)]
    pack += [(5, struct.pack("<IfQQ2f", 2, 0, 5, 0, 1, 3)), (6, struct.pack("<IfQQ2f", 2, 0, 6, 0, 3, 5))]
    lines, data = [], b""
    for key, payload in pack:
        lines.append(f"{key}\t{len(data)}\n")
        data += struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4)
    (folder / "train.rec").write_bytes(data)
    (folder / "train.idx").write_text("".join(lines))
    (folder / "property").write_text(f"2,{SIZE},{SIZE}")
    (folder / "classes.txt").write_text("ann\nbob\n")


def _table() -> Any:
    import pyarrow as pa

    names = {"info": {"features": {"label": {"names": ["ann", "bob"], "_type": "ClassLabel"}}}}
    images = [{"bytes": photo(i), "path": f"{i}.jpg"} for i in range(4)]
    return pa.table(
        {"image": pa.array(images), "label": pa.array([0, 0, 1, 1])},
    ).replace_schema_metadata({"huggingface": json.dumps(names)})


def _parquet(folder: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(_table(), folder / "faces.parquet", row_group_size=2)


def _arrow(folder: Path) -> None:
    import pyarrow as pa

    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, _table().schema) as w,
    ):
        w.write_table(_table())
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def _tar(folder: Path, labels: bool) -> None:
    with tarfile.open(folder / "faces.tar", "w") as tar:
        for i in range(4):
            name = f"{i}.jpg" if labels else f"{'ab'[i // 2]}/{i}.jpg"
            files = {name: photo(i)} | ({f"{i}.json": json.dumps({"label": i // 2}).encode()} if labels else {})
            for each, content in files.items():
                member = tarfile.TarInfo(each)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _metadata(folder: Path, form: str) -> None:
    rows = [{"file_name": f"{i}.jpg", "label": "ab"[i // 2]} for i in range(4)]
    for i in range(4):
        (folder / f"{i}.jpg").write_bytes(photo(i))
    lines = (
        [json.dumps(row) for row in rows]
        if form == "jsonl"
        else ["file_name,label", *map(",".join, map(dict.values, rows))]
    )
    (folder / f"metadata.{form}").write_text("\n".join([*lines, ""]))


def _pairs(folder: Path) -> None:
    _folder(folder)
    (folder / "pairs.csv").write_text("ann/0.jpg,ann/1.jpg,1,ann,ann\nann/0.jpg,bob/1.jpg,0,ann,bob\n")


def _ijb(folder: Path) -> None:
    (folder / "loose_crop").mkdir()
    (folder / "meta").mkdir()
    points = "46.06 62.02 87.78 60.32 68.85 77.65 52.16 99.87 86.45 98.64 0.999"
    lists = {
        "name_5pts_score.txt": "".join(f"{i}.jpg {points}\n" for i in range(1, 5)),
        "face_tid_mid.txt": "1.jpg 1 11\n2.jpg 1 12\n3.jpg 2 13\n4.jpg 3 14\n",
        "template_pair_label.txt": "1 2 1\n1 3 0\n2 3 0\n",
        "1N_gallery_G1.csv": "TEMPLATE_ID,SUBJECT_ID\n1,100\n3,200\n",
        "1N_probe_mixed.csv": "TEMPLATE_ID,SUBJECT_ID\n2,100\n",
    }
    for name, text in lists.items():
        (folder / "meta" / f"ijbb_{name}").write_text(text)
    for i in range(1, 5):
        (folder / "loose_crop" / f"{i}.jpg").write_bytes(photo(i))


def _tinyface(folder: Path) -> None:
    for part, names in {"Gallery_Match": ("1_1", "2_1"), "Probe": ("1_2", "2_2"), "Gallery_Distractor": ("9",)}.items():
        (folder / part).mkdir()
        for name in names:
            (folder / part / f"{name}.jpg").write_bytes(photo(len(name)))


def _survface(folder: Path) -> None:
    for part, names in {
        "gallery": ("1_cam1_1", "2_cam1_1"),
        "mated_probe": ("1_cam2_1",),
        "unmated_probe": ("9",),
    }.items():
        (folder / part).mkdir()
        for name in names:
            (folder / part / f"{name}.jpg").write_bytes(photo(len(name)))


def _survface_pairs(folder: Path) -> None:
    names = ["1_cam1_1.jpg", "1_cam2_1.jpg", "2_cam1_1.jpg"]
    (folder / "verification_images").mkdir()
    for i, name in enumerate(names):
        (folder / "verification_images" / name).write_bytes(photo(i))
    for name, (a, b) in {"positive_pairs_names": names[:2], "negative_pairs_names": names[1:]}.items():
        cells = np.array([[np.array([a]), np.array([b])]], dtype=object).reshape(1, 2)
        savemat(folder / f"{name}.mat", {name: cells}, do_compression=name[0] == "n")


def _features(folder: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    labels = np.array([0, 1, 0])
    np.savez(folder / "f.npz", keys=["a", "b", "c"], class_names=["x", "y"], labels=labels, vectors=vectors)


def _lfw_pairs(folder: Path) -> None:
    (folder / "pairs.txt").write_text("1 2\nann 1 2\nann 2 3\nann 1 bob 1\nann 3 bob 1\n")
    for person, count in (("ann", 3), ("bob", 1)):
        (folder / "faces" / person).mkdir(parents=True)
        for n in range(1, count + 1):
            (folder / "faces" / person / f"{person}_{n:04}.jpg").write_bytes(photo(n))


def _idx(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    (folder / "images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
    (folder / "labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">4BI3B", 0, 0, 8, 1, 3, 1, 0, 1)))


def _medmnist(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    np.savez_compressed(folder / "m.npz", train_images=images, train_labels=np.array([[1], [0], [1]], np.uint8))


def _medmnist_of_labels(folder: Path) -> None:
    """As ChestMNIST: several labels an image."""
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    labels = np.array([[1, 0], [0, 0], [1, 1]], np.uint8)
    np.savez_compressed(folder / "m.npz", train_images=images, train_labels=labels)


def _labels(folder: Path) -> None:
    """A table of several labels, with patients."""
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(photo(i))
    (folder / "labels.csv").write_text("image,patient,oedema,drusen\n0.jpg,p1,1,0\n1.jpg,p1,0,1\n2.jpg,p2,1,1\n")


def _read_labels(folder: Path) -> list[Any]:
    data = open_dataset(f"labels:table={folder / 'labels.csv'},images={folder},group=patient")
    return [*_dataset(data), data.label_names, data.multi_hot]


def _selection(folder: Path) -> None:
    keys = fd.open_source(str(_folder(folder / "faces"))).keys[:4]
    save_selection(folder / "selection.csv", folder / "faces", keys, ["ann", "ann", "bob", "new"])


def _photos(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    forms: dict[str, bytes] = {
        "plain.jpg": photo(1, quality=90),
        "progressive.jpg": photo(2, progressive=True),
        "cmyk.jpg": photo(3, mode="CMYK"),
        "grey.jpg": photo(4, mode="L"),
        "turned.jpg": photo(5, exif=exif),
        "rgb.png": photo(1, "PNG"),
        "palette.png": photo(2, "PNG", "P"),
        "alpha.png": photo(3, "PNG", "RGBA"),
        "deep.png": photo(4, "PNG", "I;16"),
        "lossy.webp": photo(1, "WEBP"),
        "whole.webp": photo(2, "WEBP", lossless=True),
        "rgb.bmp": photo(1, "BMP"),
        "palette.bmp": photo(2, "BMP", "P"),
        "still.gif": photo(1, "GIF", "P"),
        "moving.gif": photo(2, "GIF", "P", save_all=True, append_images=[Image.new("P", (9, 9))]),
        "plain.tif": photo(1, "TIFF"),
        "packed.tif": photo(2, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": photo(3, "TIFF", compression="jpeg"),
        "float.tif": photo(4, "TIFF", "F"),
        "rgb.ppm": photo(1, "PPM"),
        "grey.pgm": photo(2, "PPM", "L"),
    }
    for form, ending in (("AVIF", "avif"), ("HEIF", "heic")):
        if form in Image.SAVE:
            forms[f"rgb.{ending}"] = photo(1, form)
    for name, content in forms.items():
        (folder / name).write_bytes(content)


def _pixels(folder: Path) -> list[Any]:
    found: list[Any] = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            for read in (decode, partial(decode, upright=True), partial(reduced, at_least=8)):
                try:
                    found.append(read(path.read_bytes()))
                except ValueError as e:  # the reader's own word for an image that cannot be read
                    found.append(str(e))
    return found


def tiny_model(classes: int = 3) -> Model:
    torch.manual_seed(5)
    names = ["ann", "bob", "é"][:classes]
    head = Classifier(torch.nn.functional.normalize(torch.randn(classes, DIM)), names, "teacher")
    return Model(create_backbone("mobilefacenet", DIM, SIZE, width=0.125), classifier=head).eval()


def _model(folder: Path) -> None:
    fd.save_model(tiny_model(), folder)


def _use(model: Model) -> list[Any]:
    """What a loaded model gives: its embedding of an image, its weights and names."""
    pixels = torch.arange(3 * model.input.size**2, dtype=torch.uint8).reshape(1, 3, model.input.size, model.input.size)
    head = model.classifier
    vectors = model.embed(pixels) if model.backbone is not None else None
    return [vectors, model.state_dict(), model.space, head and [head.weight, head.class_names], model.thresholds]


def _graph(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(5, 3, 4, 4)), "matrix": rng.normal(size=(5, DIM))}
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["maps"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["maps"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["embedding"]),
    ]
    taken = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    made = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIM])
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", [taken], [made], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def _onnx_folder(folder: Path) -> None:
    _graph(folder / "net.onnx")
    fd.save_model(fd.load_model(folder / "net.onnx"), folder / "model")


def _detector(folder: Path) -> None:
    from drawn_detector import save_detector

    save_detector(folder / "detector.onnx")


def _detect(folder: Path) -> list[Any]:
    faces = Detector(folder / "detector.onnx")(np.full((64, 64, 3), 200, np.uint8))
    return [faces.boxes, faces.points, faces.scores]


def _arcface_torch(folder: Path) -> None:
    """As arcface_torch leaves a run: shards of W beside the backbone, the optimiser with them."""
    state = create_backbone("iresnet18", DIM, SIZE, width=0.125).state_dict()
    for rank in range(2):
        checkpoint = {
            "epoch": 3,
            "state_dict_backbone": state if not rank else {},
            "state_dict_softmax_fc": {"weight": torch.randn(3, DIM)},
            "state_optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        }
        torch.save(checkpoint, folder / f"checkpoint_gpu_{rank}.pt")
    (folder / "classes.txt").write_text("".join(f"person {i}\n" for i in range(6)))


def _weights(folder: Path) -> None:
    from safetensors.torch import save_file

    state = create_backbone("iresnet18", DIM, SIZE, width=0.125).state_dict()
    save_file(state, folder / "backbone.safetensors")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, folder / "backbone.pth")


def _facts(folder: Path) -> None:
    facts = Facts("0.1", "space", "model", DIM, Input(SIZE), "fp32", "nchw", "uint8", "dynamic", True, 1000, 2000)
    (folder / "facts.json").write_text(facts.to_json())


def _embeddings() -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((4, 2, DIM), dtype=np.float32)
    return Embeddings([*"wxyz"], ["ann", "bob"], np.array([0, 0, 1, 1]), vectors, "space", "model", "data")


def _recipe(folder: Path) -> None:
    raw = {"data": "photos", "teacher": "model", "method": "proxylesskd", "schedule": {"epochs": 2, "lr": 0.1}}
    (folder / "recipe.yaml").write_text(json.dumps(asdict(make_recipe(raw)) | {"method": "proxylesskd"}))  # YAML too


def _evaluation(folder: Path) -> None:
    from report_example import example

    for name in ("one", "two"):
        run = folder / name
        run.mkdir()
        (run / "evaluation.json").write_text(json.dumps(example(0.01 * len(name))))
        rows = [{"step": step, "epoch": 0, "loss": 1 / step, "lr": 0.1} for step in range(1, 9)]
        (run / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _report(folder: Path, page: bool) -> Any:
    places = [folder / "one", folder / "two"]
    evaluations, logs = load_evaluations(places), load_logs(places)
    if page:
        write_comparison(evaluations, folder / "report.html", logs=logs)
    return render_comparison(evaluations)


def _published(folder: Path) -> None:
    figures = {"set": "lfw", "protocol": "pairs", "probe": "student", "gallery": "student", "accuracy": 0.99}
    content = {"published": "a paper", "method": "its method", "results": [figures]}
    (folder / "paper.json").write_text(json.dumps(content))


def _checkpoint(folder: Path) -> None:
    network = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    state = {"method": network.state_dict(), "optimizer": optimizer.state_dict(), "frozen_weight": [torch.randn(2, 3)]}
    save_checkpoint(folder, 7, state | {"recipe": "a: 1", "trained_on": {"data": "d"}, "seconds": 1.5})


def _run_recipe() -> str:
    return written_out(dump_recipe(make_recipe({"data": "photos", "method": "scratch"})))


def _claim(folder: Path) -> Any:
    with claim_run(folder, _run_recipe(), written_out):
        return (folder / "recipe.yaml").read_text()


def _journal(folder: Path) -> None:
    journal = Journal(folder / "journal.jsonl")
    rows = [Row("ann/0.jpg", "ann", crop="ann/0.jpg", box=[1, 2, 3, 4], points=[0.5] * 10, score=0.9)]
    journal.write([("ann/0.jpg", [1, 2], rows), ("bob/0.jpg", [3, 4], [Row("bob/0.jpg", "bob", why="no face")])])


def _decisions(folder: Path) -> None:
    rows = [{"kind": "duplicate", "image": "a", "person": "b", "other": "c", "accept": True}]
    (folder / "decisions.json").write_text(json.dumps({"decisions": rows}))


def _landmarks(folder: Path) -> None:
    points = "46,62,87,60,68,77,52,99,86,98"
    (folder / "points.csv").write_text(f"ann/0.jpg,{points}\nbob/0.jpg,{points}\n")


def _cached(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Make or read what a cache in the folder serves."""

    def with_cache(folder: Path) -> Any:
        import os

        before = os.environ.get("FACEDISTILL_CACHE")
        os.environ["FACEDISTILL_CACHE"] = str(folder / "cache")
        try:
            return read(folder)
        finally:
            os.environ.pop("FACEDISTILL_CACHE") if before is None else os.environ.update(FACEDISTILL_CACHE=before)

    return with_cache


def _embedded(folder: Path) -> Any:
    found = embed_dataset(
        tiny_model(), open_dataset("synthetic:identities=2,images=2,size=32,seed=1"), cache=folder / "cache"
    )
    return [found.keys, found.class_names, found.labels, found.vectors]


def _blocks(folder: Path) -> Any:
    data = open_dataset("synthetic:identities=2,images=2,size=32,seed=1")
    return [np.array(block) for block in embed_blocks(tiny_model(), data, cache=folder / "cache")]


def _nearest(folder: Path) -> Any:
    random = torch.Generator().manual_seed(1)
    return cached_nearest(Rows(torch.nn.functional.normalize(torch.randn(9, DIM, generator=random)), None), 3)


def _with_cache(make: Callable[[Path], object], read: Callable[[Path], Any]) -> Callable[[Path], object]:
    def both(folder: Path) -> None:
        make(folder)
        _cached(read)(folder)

    return both


_tar_of_people = partial(_tar, labels=False)
FORMATS: dict[str, Format] = {
    "verification .bin": Format(_bin, _sets("set.bin"), ("set*",)),
    "verification .bin of numpy": Format(_bin_of_numpy, _sets("set.bin"), ("set.bin",)),
    "RecordIO": Format(_recordio, _data(), ("*",)),
    "Parquet": Format(_parquet, _data("faces.parquet"), ("*.parquet",), weight=2),
    "Arrow": Format(_arrow, _data(), ("*.arrow", "state.json"), weight=2),
    "tar": Format(_tar_of_people, _data("faces.tar"), ("*.tar",)),
    "webdataset": Format(partial(_tar, labels=True), _data("faces.tar"), ("*.tar",)),
    "metadata.csv": Format(partial(_metadata, form="csv"), _data(), ("metadata.csv",)),
    "metadata.jsonl": Format(partial(_metadata, form="jsonl"), _data(), ("metadata.jsonl",)),
    "folder per identity": Format(_folder, _data(), ("*/*.jpg",)),
    "list of pairs": Format(_pairs, _sets("pairs.csv"), ("pairs.csv",)),
    "IJB": Format(_ijb, _sets(), ("meta/*",)),
    "TinyFace": Format(_tinyface, _sets(), ("*/*.jpg",)),
    "SurvFace": Format(_survface, _sets(), ("*/*.jpg",)),
    "SurvFace's pairs": Format(_survface_pairs, _sets(), ("*.mat",)),
    "table of features": Format(
        _features, lambda folder: _dataset(open_dataset(f"features:{folder / 'f.npz'}")), ("f.npz",)
    ),
    "LFW's pairs.txt": Format(_lfw_pairs, _sets("pairs.txt"), ("pairs.txt",)),
    "IDX": Format(_idx, _data(), ("*",)),
    "MedMNIST": Format(_medmnist, _data("m.npz"), ("m.npz",)),
    "MedMNIST of several labels": Format(_medmnist_of_labels, _data("m.npz"), ("m.npz",)),
    "table of labels": Format(_labels, _read_labels, ("labels.csv",)),
    "subsets .csv": Format(
        lambda f: (f / "s.csv").write_text("eyes,glasses\neyes,frown\nmouth,smile\n"),
        lambda f: read_subsets(f / "s.csv"),
        ("s.csv",),
    ),
    "subsets .yaml": Format(
        lambda f: (f / "s.yaml").write_text("eyes: [glasses, frown]\nmouth: [smile]\n"),
        lambda f: read_subsets(f / "s.yaml"),
        ("s.yaml",),
    ),
    "selection": Format(_selection, _data("selection.csv"), ("selection.csv",)),
    "image": Format(_photos, _pixels, ("*",)),
    "model folder: config, classifier, names": Format(
        _model, lambda f: _use(fd.load_model(f)), ("config.json", "classifier.safetensors", "classes.txt"), weight=2
    ),
    "model folder: weights": Format(_model, lambda f: _use(fd.load_model(f)), ("model.safetensors",), "refused", 2),
    "model folder: ONNX weights": Format(
        _onnx_folder, lambda f: _use(fd.load_model(f / "model")), ("model/model.onnx",), "refused", 10
    ),
    "ONNX": Format(lambda f: _graph(f / "n.onnx"), lambda f: _use(fd.load_model(f / "n.onnx")), ("n.onnx",), weight=1),
    "ONNX detector": Format(_detector, _detect, ("detector.onnx",)),
    "arcface_torch": Format(
        _arcface_torch, lambda f: _use(fd.import_model(f, classes=f / "classes.txt")), ("*",), weight=2
    ),
    "state dict .pth": Format(_weights, lambda f: _use(fd.import_model(f / "backbone.pth")), ("*.pth",), weight=2),
    "state dict .safetensors": Format(
        _weights, lambda f: _use(fd.import_model(f / "backbone.safetensors")), ("*.safetensors",), weight=5
    ),
    "embeddings .npz": Format(
        lambda f: _embeddings().save(f / "e.npz"), lambda f: _use(fd.import_model(f / "e.npz")), ("e.npz",), "refused"
    ),
    "facts of an exported file": Format(
        _facts, lambda f: facts_of({FACTS: (f / "facts.json").read_text(errors="replace")}, f), ("*",)
    ),
    "class names": Format(
        lambda f: (f / "n.txt").write_text("ann\nbob\n"), lambda f: read_names(f / "n.txt"), ("n.txt",)
    ),
    "recipe": Format(_recipe, lambda f: dump_recipe(load_recipe(str(f / "recipe.yaml"))), ("recipe.yaml",)),
    "recipe of a run": Format(
        lambda f: (f / "recipe.yaml").write_text(_run_recipe()), _claim, ("recipe.yaml",), weight=5
    ),
    "checkpoint": Format(_checkpoint, latest_checkpoint, ("checkpoints/*",), "refused"),
    "log": Format(_evaluation, lambda f: read_log(f / "one" / "log.jsonl"), ("one/log.jsonl",)),
    "evaluation": Format(_evaluation, partial(_report, page=False), ("*/*.json",), weight=2),
    "report": Format(_evaluation, partial(_report, page=True), ("*/*",), weight=1),
    "published figures": Format(_published, lambda f: render_comparison(load_evaluations([f / "paper.json"])), ("*",)),
    "prepare's journal": Format(_journal, lambda f: Journal(f / "journal.jsonl").done, ("journal.jsonl",)),
    "clean's decisions": Format(_decisions, lambda f: decide([], f / "decisions.json"), ("decisions.json",)),
    "landmarks": Format(_landmarks, lambda f: read_landmarks(f / "points.csv"), ("points.csv",)),
    "cache: tar index": Format(
        _with_cache(_tar_of_people, _data("faces.tar")), _cached(_data("faces.tar")), ("cache/tar/*",), "made anew"
    ),
    "cache: embeddings": Format(_cached(_embedded), _cached(_embedded), ("cache/*.npz",), "made anew", 2),
    "cache: blocks of embeddings": Format(_cached(_blocks), _cached(_blocks), ("cache/*.npy",), "made anew", 2),
    "cache: nearest classes": Format(_cached(_nearest), _cached(_nearest), ("cache/nearest/*",), "made anew"),
}

"""Make a set in IJB's layout from any labelled faces: templates of several images, 1:1 pairs, 1:N galleries.

    python benchmarks/ijb_from_faces.py FACES --out IJB
    facedistill evaluate MODEL --on IJB

Each person's images are split into two templates, and every two images count as one medium (a video). Crops are like
IJB's: the face is somewhere in a larger picture, turned and scaled, and its landmarks say where. A tenth of the people
are in no gallery, so their probes are non-mated; half of the others are in gallery G1, half in G2.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from facedistill.data import TEMPLATE, Dataset, open_dataset

CROP = 160
IMPOSTORS = 200  # pairs per template


def crop(pixels: np.ndarray, rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Return the face, turned, scaled and moved, in a picture of CROP x CROP, and its landmarks (5, 2)."""
    angle, scale = rng.uniform(-0.3, 0.3), rng.uniform(0.9, 1.2) * 112 / len(pixels)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre, moved = np.array(pixels.shape[1::-1]) / 2, CROP / 2 + rng.uniform(-8, 8, 2)
    back = np.linalg.inv(turn)
    shift = centre - back @ moved
    coefficients = (*back[0], shift[0], *back[1], shift[1])
    image = Image.fromarray(pixels).transform(
        (CROP, CROP), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    landmarks = TEMPLATE * (len(pixels) / 112)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    # Pillow counts from pixels' corners, landmarks from their centres
    return file.getvalue(), (landmarks + 0.5 - centre) @ turn.T + moved - 0.5


def write_ijb(faces: Dataset, folder: Path, seed: int = 0) -> None:
    """Write loose_crop/ and meta/ with the names of IJB-C. People with fewer than two images are left out."""
    rng = np.random.default_rng(seed)
    (folder / "loose_crop").mkdir(parents=True)
    (folder / "meta").mkdir()
    points: list[str] = []
    belongs: list[str] = []
    templates: list[tuple[int, int]] = []
    for person in range(len(faces.class_names)):
        rows = np.flatnonzero(faces.labels == person)
        if len(rows) < 2:
            continue
        for share in (rows[::2], rows[1::2]):
            template = len(templates) + 1
            templates.append((template, person))
            for k, row in enumerate(share.tolist()):
                name = f"{len(points) + 1}.jpg"
                image, landmarks = crop(faces.image(row), rng)
                (folder / "loose_crop" / name).write_bytes(image)
                numbers = " ".join(f"{x:.4f}" for x in landmarks.ravel())
                points.append(f"{name} {numbers} {rng.uniform(0.8, 1):.4f}\n")
                belongs.append(f"{name} {template} {template * 1000 + k // 2}\n")
    people = dict(templates)
    ids = np.array(list(people))
    pairs = [f"{a} {a + 1} 1\n" for a in ids[::2]]
    for a in ids.tolist():
        pairs += [f"{a} {b} 0\n" for b in rng.choice(ids, IMPOSTORS) if people[a] != people[b]]
    meta = {"name_5pts_score": points, "face_tid_mid": belongs, "template_pair_label": pairs}
    for name, lines in meta.items():
        (folder / "meta" / f"ijbc_{name}.txt").write_text("".join(lines))
    header = "TEMPLATE_ID,SUBJECT_ID\n"
    enrolled = [a for a in ids[::2].tolist() if people[a] % 10]
    for name, members in (("gallery_G1", enrolled[::2]), ("gallery_G2", enrolled[1::2]), ("probe_mixed", ids[1::2])):
        text = header + "".join(f"{a},{people[int(a)]}\n" for a in members)
        (folder / "meta" / f"ijbc_1N_{name}.csv").write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write_ijb(open_dataset(arguments.faces), arguments.out)

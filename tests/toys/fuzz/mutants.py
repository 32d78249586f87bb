"""Mutants of a file: damage to its bytes, and to the structure that a view of the format finds in them."""

import copy
import csv
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import yaml

CANARY = "canary"  # a file of this name in the working folder says that code from a mutant was run
CODE = [
    f"cos\nsystem\n(S'touch {CANARY}'\ntR.".encode(),
    b"\x80\x04c" + f"os\nsystem\n\x8c{chr(6 + len(CANARY))}touch {CANARY}".encode() + b"\x85R.",
    f"!!python/object/apply:os.system ['touch {CANARY}']".encode(),
    f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch {CANARY}) (r) file closefile\n".encode(),
    f'__import__("os").system("touch {CANARY}")'.encode(),
    f"$(touch {CANARY})".encode(),
]
VALUES: list[Any] = [None, True, False, 0, -1, 1, 0.5, 1e308, 1e-320, float("nan"), float("inf"), 2**31, 2**63, 10**40]
VALUES += [
    "",
    "a",
    "²",
    "\0",
    "\udcff",
    "../../etc/passwd",
    "/dev/zero",
    "x" * 5000,
    [],
    {},
    [[]],
    {"a": {}},
    [0] * 999,
]
VALUES += [code.decode("latin-1") for code in CODE]
CELLS = ["", "0", "-1", "1e999", "nan", "²", "99999999999999999999", '"', "\r", "a,b", "x" * 5000]
CELLS += ["../../etc/passwd", "/dev/zero"]


def damaged(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    """Return `data` with one to three places changed: bits, ranges, numbers, pieces of `others`, code."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(DAMAGES)(data, random, others)
    return data


def _place(data: bytes, random: Random) -> tuple[int, int]:
    """Return a range; half of them lie in the first 256 bytes, where headers are."""
    start = random.randrange(min(len(data), 256) if random.random() < 0.5 else len(data)) if data else 0
    return start, min(len(data), start + random.choice((1, 1, 2, 4, 8, 64, 1024)))


def _flip(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    start, _end = _place(data, random)
    return data[:start] + bytes([data[start] ^ 1 << random.randrange(8)]) + data[start + 1 :] if data else data


def _fill(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    start, end = _place(data, random)
    return data[:start] + random.choice((b"\0", b"\xff", b" ", b"\x80")) * (end - start) + data[end:]


def _truncate(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    return data[: _place(data, random)[0]]


def _delete(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    start, end = _place(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    start, end = _place(data, random)
    return data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:]


def _number(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    """Set a number of 1 to 8 bytes to an extreme, or move it by one."""
    start, _end = _place(data, random)
    form = random.choice("<>") + random.choice("bhiqBHIQfd")
    size = struct.calcsize(form)
    if start + size > len(data):
        return data
    if form[1] in "fd":
        value: float = random.choice((float("nan"), float("inf"), -1.0, 1e30, 2**53))
    else:
        bits, old = 8 * size, int.from_bytes(data[start : start + size], "little" if form[0] == "<" else "big")
        high = 2 ** (bits - 1) if form[1].islower() else 2**bits
        value = random.choice((0, 1, high - 1, high // 2, high - 2, (old + 1) % high, (old - 1) % high, 2 * old % high))
    return data[:start] + struct.pack(form, value) + data[start + size :]


def _digits(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    """Replace a run of decimal digits by an extreme."""
    start, _end = _place(data, random)
    start = next((i for i in range(start, min(len(data), start + 4096)) if data[i] in b"0123456789"), -1)
    if start < 0:
        return data
    end = next((i for i in range(start, len(data)) if data[i] not in b"0123456789"), len(data))
    number = random.choice((b"0", b"-1", b"99999", b"4294967296", b"9" * 30, b"1e9", b"7777777777", b"nan"))
    return data[:start] + number + data[end:]


def _splice(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    other = others[random.choice(sorted(others))]
    (start, end), (first, last) = _place(data, random), _place(other, random)
    return data[:start] + other[first:last] + data[end:]


def _code(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    start, _end = _place(data, random)
    return data[: start if random.random() < 0.5 else 0] + random.choice(CODE) + (data[start:] if start % 2 else b"")


def _swap(data: bytes, random: Random, _: Mapping[str, bytes]) -> bytes:
    (start, end), (first, last) = sorted((_place(data, random), _place(data, random)))
    if end > first:
        return data
    return data[:start] + data[first:last] + data[end:first] + data[start:end] + data[last:]


DAMAGES = (_flip, _flip, _fill, _truncate, _delete, _repeat, _number, _number, _number, _digits, _splice, _code, _swap)


def rearranged(tree: Any, random: Random) -> Any:
    """Return a tree of dicts and lists with one node replaced, removed, repeated, renamed, or put where another is."""
    tree = copy.deepcopy(tree)
    nodes = _nodes({"": tree}, [])
    holder, key = random.choice(nodes)
    kind = random.randrange(6)
    if kind == 0 and isinstance(holder, dict) and key != "":
        del holder[key]
    elif kind == 1 and isinstance(holder, dict) and key != "":
        holder[str(random.choice(VALUES))] = holder.pop(key)
    elif kind == 2:
        other, place = random.choice(nodes)
        holder[key] = copy.deepcopy(other[place])
    elif kind == 3 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == 4:
        for _ in range(random.choice((1, 3, 400))):
            holder[key] = [holder[key]] if random.random() < 0.5 else {"a": holder[key]}
    else:
        holder[key] = random.choice(VALUES)
    return nodes[0][0][""]


def _nodes(holder: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    for key in list(holder if isinstance(holder, dict) else range(len(holder))):
        found.append((holder, key))
        if isinstance(holder[key], dict | list):
            _nodes(holder[key], found)
    return found


Mutate = Callable[[bytes, Random, Mapping[str, bytes]], bytes]


def in_json(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    return json.dumps(rearranged(json.loads(data), random)).encode()


def in_yaml(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    return json.dumps(rearranged(yaml.safe_load(data), random)).encode()  # JSON is YAML


def in_json_lines(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    lines = data.splitlines()
    place = random.randrange(len(lines))
    lines[place] = in_json(lines[place], random, others)
    return b"\n".join([*lines, b""])


def in_table(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    """One cell, row or column of a CSV changed."""
    rows = list(csv.reader(io.StringIO(data.decode())))
    row = random.choice(rows)
    kind = random.randrange(5)
    if kind == 0 or not row:
        rows.remove(row)
    elif kind == 1:
        rows.insert(random.randrange(len(rows)), row)
    elif kind == 2:
        place = random.randrange(min(map(len, rows)) or 1)
        for each in rows:
            del each[place : place + 1]
    else:
        row[random.randrange(len(row))] = random.choice(CELLS)
    out = io.StringIO()
    csv.writer(out, lineterminator=random.choice(("\n", "\r\n", "\r"))).writerows(rows)
    return out.getvalue().encode()


def in_zip(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    """One member changed and the archive written anew, so that its checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice(sorted(members))
    content = members.pop(name)
    if random.random() < 0.1:
        name = random.choice((name[:-1], f"../{name}", "x" * 300, random.choice(sorted(members or {name: b""}))))
    else:
        content = damaged(content, random, others)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, stored in (members | {name: content}).items():
            archive.writestr(each, stored)
    return out.getvalue()


def in_tar(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    """A header changed, with its checksum right: 512 bytes, the sum of all with the field itself as spaces."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        start = random.choice([member.offset for member in tar])
    header = damaged(data[start : start + 512], random, others)[:512].ljust(512, b"\0")
    total = sum(header[:148]) + sum(header[156:]) + 8 * 32
    return data[:start] + header[:148] + b"%06o\0 " % total + header[156:] + data[start + 512 :]


def in_safetensors(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    """The header's JSON changed, and its length written anew."""
    (size,) = struct.unpack_from("<Q", data)
    header = in_json(data[8 : 8 + size], random, others)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def in_png(data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    """A chunk changed, with its checksum right."""
    chunks, place = [], 8
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        chunks.append(data[place + 4 : place + 8 + size])
        place += 12 + size
    number = random.randrange(len(chunks))
    chunks[number] = chunks[number][:4] + damaged(chunks[number][4:], random, others)
    return data[:8] + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


VIEWS: dict[str, Mutate] = {
    ".json": in_json,
    ".yaml": in_yaml,
    ".jsonl": in_json_lines,
    ".csv": in_table,
    ".npz": in_zip,
    ".pt": in_zip,
    ".pth": in_zip,
    ".tar": in_tar,
    ".safetensors": in_safetensors,
    ".png": in_png,
}


def mutant(name: str, data: bytes, random: Random, others: Mapping[str, bytes]) -> bytes:
    """Return a mutant of the file `name`: of its structure if its ending has a view, else or as often of its bytes."""
    view = VIEWS.get(name[name.rfind(".") :])
    while True:
        change = view if view and random.random() < 0.5 else damaged
        try:
            found = change(data, random, others)
        except ValueError:  # some files of this ending have another structure
            found = damaged(data, random, others)
        if found != data:
            return found

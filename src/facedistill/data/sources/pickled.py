"""Reads a pickle of lists, bytes, whole numbers and uint8 arrays as data: nothing in the file names code that runs.

A small machine of its own knows the opcodes that Python 2 and 3 (protocols 0 to 5) and numpy 1 and 2 write for such
values. The eight names that they use are compared as texts and stand for functions here. No numpy object exists while
the file is read: an array is its shape, its type and its bytes, and its size is compared with those bytes.
"""

import codecs
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

DEPTH = 32  # open brackets; a .bin needs 5
OPERATIONS, BYTES = 100_000, 16  # so many, and one more for so many bytes: an image takes 2 to 40
LINE = 1 << 10  # characters of a name or number that ends with its line
KIND = re.compile(r"[biu][1248]|O8?")
NUMPY = {"numpy.core": "numpy._core", "__builtin__": "builtins"}  # names before numpy 2 and Python 3


class CarriesCode(Exception):
    """The pickle asks for something by name that is no part of the format."""


class NotData(ValueError):
    """The pickle is damaged, or holds other values than those above."""


@dataclass(frozen=True)
class Name:
    """A function or class that the pickle names."""

    text: str


@dataclass
class Kind:
    """The type of an array's elements: "u1" for uint8, "b1" for bool, "O" for Python objects; byte order < or >."""

    text: str
    order: str = "<"


@dataclass
class Array:
    """An array: its elements in C order, bytes of `kind`. Before its state is read, `kind` is empty."""

    shape: tuple[int, ...] = ()
    kind: str = ""
    data: bytes = b""
    fortran: bool = False

    def numbers(self) -> list[int]:
        """Return the elements of an array of whole numbers or bools, one dimension."""
        order, size = ("big" if self.kind[0] == ">" else "little"), int(self.kind[2])
        signed = self.kind[1] == "i"
        parts = (self.data[i : i + size] for i in range(0, len(self.data), size))
        return [int.from_bytes(part, order, signed=signed) for part in parts]  # type: ignore[arg-type]


class Pickled:
    """The machine. `value()` returns the content: lists, tuples, bytes, str, int, bool, None and Array."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.spare = 2 * len(data)  # bytes that calls may still make: each byte of the file is encoded and wrapped once

    def value(self) -> Any:
        """Return the pickled value. Raises CarriesCode or NotData."""
        most = OPERATIONS + len(self.data) // BYTES
        try:
            for _ in range(most):
                code = self.data[self.at]
                self.at += 1
                if code == ord("."):
                    return self._pop()
                step = OPCODES.get(code)
                if step is None:
                    raise NotData(f"opcode {bytes([code])!r} at byte {self.at - 1} has no place in it")
                step(self)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as e:
            if isinstance(e, NotData):
                raise
            raise NotData(f"damaged at byte {self.at}") from e
        raise NotData(f"more than {most:,} operations")

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes of the file."""
        if not 0 <= count <= len(self.data) - self.at:
            raise NotData(f"{count:,} bytes announced at byte {self.at}, {len(self.data) - self.at:,} there")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self, most: int = LINE) -> bytes:
        """Return the bytes up to the end of the line."""
        end = self.data.index(b"\n", self.at, min(len(self.data), self.at + most))
        found, self.at = self.data[self.at : end], end + 1
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        if len(self.marks) == DEPTH:
            raise NotData(f"nested more than {DEPTH} deep")
        self.marks.append(len(self.stack))

    def _pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise NotData(f"damaged at byte {self.at}")
        return self.stack.pop()

    def items(self) -> list[Any]:
        """Return what was pushed since the last bracket, and close it."""
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def tuple_of(self, count: int) -> None:
        found = [self._pop() for _ in range(count)]
        self.push(tuple(reversed(found)))

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise NotData(f"damaged at byte {self.at}")
        target.extend(items)

    def store(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def name(self, module: str, attribute: str) -> None:
        for old, new in NUMPY.items():
            module = new + module[len(old) :] if module == old or module.startswith(f"{old}.") else module
        text = f"{module}.{attribute}"
        if text not in CALLS and text != "numpy.ndarray":
            raise CarriesCode(ascii(text)[1:-1][:100])
        self.push(Name(text))

    def stack_name(self) -> None:
        attribute, module = self._pop(), self._pop()
        if type(attribute) is not str or type(module) is not str:
            raise NotData(f"damaged at byte {self.at}")
        self.name(module, attribute)

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Name or function.text not in CALLS or type(arguments) is not tuple:
            raise NotData(f"a call at byte {self.at} that has no place in it")
        made = CALLS[function.text](*arguments)
        self.spare -= len(made) if isinstance(made, bytes) else 0
        if self.spare < 0:
            raise NotData("calls make more bytes than the file holds")
        self.push(made)

    def build(self) -> None:
        state, target = self._pop(), self.stack[-1]
        if type(state) is not tuple or type(target) not in (Kind, Array):
            raise NotData(f"a state at byte {self.at} that has no place in it")
        if type(target) is Kind:
            order, *fields = state[1:5]
            if any(field is not None for field in fields):
                raise NotData("an array of records")
            target.order = ">" if _text(order) == ">" else "<"
        else:
            shape, kind, fortran, data = state[-4:]  # before them the version, which numpy 1.0 did not write
            self.stack[-1] = _fill(target, shape, kind, data, bool(fortran))


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _fill(array: Array, shape: Any, kind: Any, data: Any, fortran: bool) -> Any:
    """Give an array its state. An array of Python objects has a list as its data, and becomes that list."""
    if type(kind) is not Kind or type(shape) is not tuple or not _is_shape(shape):
        raise NotData("an array without a shape or type")
    if array.kind:
        raise NotData("an array whose state is given twice")
    if kind.text.startswith("O"):
        if type(data) is not list or len(shape) != 1 or len(data) != shape[0]:
            raise NotData("an array of objects that is no list")
        return data
    if type(data) is not bytes or prod(shape) * int(kind.text[1]) != len(data):
        held = f"{len(data):,} bytes" if isinstance(data, bytes) else "other data"
        raise NotData(f"an array of shape {list(shape)[:4]} with {held}")
    array.shape, array.kind, array.data, array.fortran = shape, kind.order + kind.text, data, fortran
    return array


def _is_shape(shape: tuple) -> bool:
    return len(shape) <= 4 and all(type(n) is int and n >= 0 for n in shape)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Protocols 0 to 2 write bytes as text to be encoded."""
    if _text(encoding)[:20] not in ("latin1", "latin-1"):
        raise NotData(f"codec {_text(encoding)[:20]!a}")
    return text.encode("latin-1")


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    return _encode(content, encoding) if type(content) is str else memoryview(content).tobytes()


def _kind(text: Any, *_: Any) -> Kind:
    if not KIND.fullmatch(found := _text(text)[:20]):
        raise NotData(f"an array of {found!a}; expected uint8")
    return Kind(found)


def _scalar(kind: Any, data: Any) -> int:
    found = _fill(Array(), (1,), kind, data, False)
    return bool(found.numbers()[0]) if kind.text == "b1" else found.numbers()[0]


CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "numpy.dtype": _kind,
    "numpy._core.multiarray._reconstruct": lambda *_: Array(),
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": lambda data, kind, shape, order: _fill(Array(), shape, kind, data, order == "F"),
}


def _integer(line: bytes) -> int:
    """A number as protocol 0 writes it: 00 and 01 are bools."""
    if line in (b"00", b"01"):
        return line == b"01"
    if len(line) > 21:
        raise NotData("a number of more than 20 digits")
    return int(line.rstrip(b"L"))


def _long(machine: Pickled, size: int) -> None:
    if not 0 <= size <= 8:
        raise NotData(f"a number of {size} bytes")
    machine.push(int.from_bytes(machine.take(size), "little", signed=True))


def _python2_string(line: bytes) -> bytes:
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in b"'\"":
        raise NotData("a text without quotes")
    return codecs.escape_decode(line[1:-1])[0]


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


M = Pickled
OPCODES: dict[int, Callable[[Pickled], Any]] = {
    ord(code): step
    for code, step in {
        "\x80": lambda m: m.take(1),  # the protocol
        "\x95": lambda m: m.take(8),  # a frame
        "(": M.mark,
        "0": M._pop,
        "1": M.items,
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": lambda m: m.push(_integer(m.line())),
        "L": lambda m: m.push(_integer(m.line())),
        "J": lambda m: m.push(m.number("<i")),
        "K": lambda m: m.push(m.number("<B")),
        "M": lambda m: m.push(m.number("<H")),
        "\x8a": lambda m: _long(m, m.number("<B")),
        "\x8b": lambda m: _long(m, m.number("<i")),
        "S": lambda m: m.push(_python2_string(m.line(len(m.data)))),
        "T": lambda m: m.push(m.take(m.number("<i"))),
        "U": lambda m: m.push(m.take(m.number("<B"))),
        "B": lambda m: m.push(m.take(m.number("<I"))),
        "C": lambda m: m.push(m.take(m.number("<B"))),
        "\x8e": lambda m: m.push(m.take(m.number("<Q"))),
        "\x96": lambda m: m.push(m.take(m.number("<Q"))),  # a bytearray
        "V": lambda m: m.push(m.line(len(m.data)).decode("raw_unicode_escape")),
        "X": lambda m: m.push(_utf8(m.take(m.number("<I")))),
        "\x8c": lambda m: m.push(_utf8(m.take(m.number("<B")))),
        "\x8d": lambda m: m.push(_utf8(m.take(m.number("<Q")))),
        "]": lambda m: m.push([]),
        "l": lambda m: m.push(m.items()),
        "a": lambda m: m.append([m._pop()]),
        "e": lambda m: m.append(m.items()),
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.items())),
        "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2),
        "\x87": lambda m: m.tuple_of(3),
        "p": lambda m: m.store(int(m.line(21))),
        "q": lambda m: m.store(m.number("<B")),
        "r": lambda m: m.store(m.number("<I")),
        "\x94": lambda m: m.store(len(m.memo)),
        "g": lambda m: m.push(m.memo[int(m.line(21))]),
        "h": lambda m: m.push(m.memo[m.number("<B")]),
        "j": lambda m: m.push(m.memo[m.number("<I")]),
        "c": lambda m: m.name(m.line().decode("ascii"), m.line().decode("ascii")),
        "i": lambda m: m.name(m.line().decode("ascii"), m.line().decode("ascii")),  # an instance: never data
        "\x93": M.stack_name,
        "R": M.reduce,
        "b": M.build,
    }.items()
}

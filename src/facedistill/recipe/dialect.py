"""The YAML dialect of recipes: version 1.2 where 1.1 surprises."""

import re
from typing import Any

import yaml

from facedistill.errors import UsageError, printable


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where 1.1 surprises: `1e-1` is a number; `on`, `no`, `2024-05-01`, `1:30` and `0o17` are words."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would read as something other than a word."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False", "tfTF"),
    ("int", r"[-+]?(0|[1-9]\d*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if any(letter in text for letter in LINE_ENDS) else None  # the only style that escapes them
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)

MOST_CHARACTERS, MOST_VALUES, DEEPEST = 2**20, 10_000, 50  # a recipe has some hundred values, five deep
TOO_DEEP = f"nested more than {DEEPEST} deep"
LINE_ENDS = "\x85\u2028\u2029"  # of YAML 1.1; letters in 1.2


def read_yaml(text: str) -> Any:
    """Return the content of a YAML text. Raises ValueError with one line if it is not YAML, or too much of it."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS:,} characters")
    if found := next((letter for letter in text if letter in LINE_ENDS), None):
        code = f"{ord(found):04x}"
        raise ValueError(f'holds the character U+{code.upper()}; write it in double quotes as "\\u{code}"')
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, 0)
        return loader.construct_document(node)
    except yaml.YAMLError as e:
        raise ValueError(" ".join(str(e).split())) from e
    except RecursionError as e:
        raise ValueError(TOO_DEEP) from e


def _count(node: yaml.Node, counted: dict[yaml.Node, int], depth: int) -> int:
    """Return the number of values under a node with every alias written out. Raises ValueError if it is too large."""
    if counted.get(node) == 0:
        raise ValueError("a value contains itself by an alias (*)")
    if depth > DEEPEST:
        raise ValueError(TOO_DEEP)
    if node not in counted:
        counted[node] = 0  # being counted
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            _require_unique(node)
            children = [part for pair in node.value for part in pair]
        counted[node] = 1 + sum(_count(child, counted, depth + 1) for child in children)
    if counted[node] > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values, aliases (*) written out")
    return counted[node]


def _require_unique(node: yaml.MappingNode) -> None:
    """Raise ValueError if a key is there twice: PyYAML would keep the last alone."""
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if (key.tag, key.value) in seen:
                raise ValueError(f"the key '{printable(key.value)}' is there twice (line {key.start_mark.line + 1})")
            seen.add((key.tag, key.value))


def parse_value(text: str) -> Any:
    """Return the YAML value of a `key=value` override. Raises UsageError when it is not YAML."""
    try:
        return read_yaml(text)
    except ValueError as e:
        raise UsageError(f"'{printable(text[:100])}' is not a YAML value: {e}; quote it") from e

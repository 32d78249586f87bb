"""The YAML dialect of recipes: version 1.2 where 1.1 surprises."""

import re
from typing import Any

import yaml

from facedistill.errors import UsageError


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


def parse_value(text: str) -> Any:
    """Return the YAML value of a `key=value` override. Raises UsageError when it is not YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        raise UsageError(f"'{text}' is not a YAML value: {' '.join(str(e).split())}; quote it") from e

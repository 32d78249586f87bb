"""The command line: thin verbs that parse, call and print. Nothing heavy is imported before a verb runs."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import MissingArgumentError, UnknownOptionError

from facedistill import __version__
from facedistill.errors import UserError, closest

app = App(
    name="facedistill",
    version=__version__,
    help="Distil a strong face-recognition teacher into a small student that lives in the teacher's embedding "
    "space.\n\n`facedistill demo` shows the whole story; `facedistill VERB --help` shows an example of each verb.",
    help_format="markdown",
)
Many = Parameter(consume_multiple=True, negative="")
Flag = Parameter(negative="", show_default=False)


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    if path is None:
        return
    from facedistill.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments`, or on those of the process. Exit codes: 0 done, 1 failed, 2 wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes; stderr escapes them already
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as e:
        print(f"facedistill: {_explain(e)}", file=sys.stderr)
        raise SystemExit(2) from None
    except UserError as e:
        print(f"facedistill: {' '.join(str(e).split())}", file=sys.stderr)  # a library's text may have more lines
        raise SystemExit(e.exit_code) from None
    except OSError as e:
        print(f"facedistill: {e.filename or 'a file'}: {e.strerror or e}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("facedistill: stopped", file=sys.stderr)
        raise SystemExit(130) from None


def _explain(error: CycloptsError) -> str:
    """Return one line that says why the command line cannot be parsed, and what to do."""
    verb = " ".join(["facedistill", *(error.command_chain or ())])
    text = " ".join(str(error).split()).rstrip(".?")
    if error.unused_tokens and not isinstance(error, UnknownOptionError):
        first = error.unused_tokens[0]
        known = sorted((name for name in app if not name.startswith("-")), key=lambda name: app[name].sort_key)
        unknown = f"unknown verb '{first}'{closest(first, known)}; expected one of {', '.join(known)}"
        text = f"unexpected argument '{first}'" if error.command_chain else unknown
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        text = f"{error.argument.name} needs a value"
    return f"{text}; `{verb} --help` shows an example"


if __name__ == "__main__":
    main()

"""The command line: thin verbs that parse, call and print. Nothing heavy is imported before a verb runs."""

import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import MissingArgumentError, UnknownOptionError

from facedistill import __version__
from facedistill.errors import UserError, closest, printable, printable_lines
from facedistill.heap import keep_freed_memory

app = App(
    name="facedistill",
    version=__version__,
    help="Distil a strong face-recognition teacher into a small student that lives in the teacher's embedding "
    "space.\n\n`facedistill demo` shows the whole story; `facedistill VERB --help` shows an example of each verb.",
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
Many = Parameter(consume_multiple=True, negative="")
Repeated = Parameter(negative="")  # `--x A --x B`: words after A may belong to something else
Flag = Parameter(negative="", show_default=False)
STDOUT = Path("-")
NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")  # torch raises RuntimeError
OUT_OF_MEMORY = (
    "out of memory; use smaller batches (schedule.batch) or images, fewer decoding processes (data.workers), or a "
    "machine with more memory"
)
WORKER_KILLED = (
    "a decoding process was killed, most likely because memory ran out; set data.workers=0, or use smaller images. To "
    "resume a run from its last checkpoint, run the same command again"
)


def _require(folder: bool) -> Parameter:
    """Return a check that runs before the verb: its output can be written."""

    def check(_: object, path: Path | None) -> None:
        from facedistill.files import require_writable

        if path not in (None, STDOUT):
            require_writable(path, folder)

    return Parameter(validator=check)


Folder = Annotated[Path, _require(folder=True)]
File = Annotated[Path, _require(folder=False)]
Report = Annotated[Path | None, _require(folder=False)]
Json = Annotated[Path | None, Parameter(name="--json"), _require(folder=False)]


def answer(text: str, path: Path | None = None, content: dict[str, Any] | None = None) -> None:
    """Print the answer of a verb, and write it as JSON to `path`. If that is "-", only the JSON is on stdout."""
    from facedistill.files import atomic_write

    print(printable_lines(text), file=sys.stderr if path == STDOUT else sys.stdout)
    if content is None:
        return
    if path == STDOUT:
        print(json.dumps(content, indent=1))
    elif path is not None:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments`, or on those of the process.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An error is one line on stderr.
    """
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes; stderr escapes them already
    try:
        app(_joined(sys.argv[1:] if arguments is None else arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as e:
        code, text = _told(e)
        print(f"facedistill: {printable(' '.join(text.split()))}", file=sys.stderr)  # a library's text may have lines
        raise SystemExit(code) from None


def _joined(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--json -` as one word, because the parser takes a lone dash for no value."""
    joined: list[str] = []
    for word in arguments:
        if word == str(STDOUT) and joined and joined[-1] == "--json":
            joined[-1] = f"--json={STDOUT}"
        else:
            joined.append(word)
    return joined


def _told(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an error, and the text that says what to do."""
    text = str(error)
    if isinstance(error, CycloptsError):
        return 2, _explain(error)
    if isinstance(error, UserError):
        return error.exit_code, text
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped"
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains when it closes stdout
        return 1, "nobody reads the output any more"
    if isinstance(error, OSError):
        return 1, f"{error.filename or 'a file'}: {error.strerror or error}"
    if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        return 1, OUT_OF_MEMORY
    if "DataLoader worker" in text:
        return 1, WORKER_KILLED
    return 1, _unexpected(error)


def _unexpected(error: BaseException) -> str:
    """Write the traceback to a file of its own, and return the line that names it."""
    what = f"unexpected {type(error).__name__}: {error}".rstrip(": ")[:300]
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", prefix="facedistill-", suffix=".txt", delete=False
        ) as file:
            print(f"facedistill {__version__}: {sys.argv}", file=file)
            traceback.print_exception(error, file=file)
    except OSError:
        return f"{what}; this is a fault of the program"
    return f"{what}; this is a fault of the program: please report it with the traceback in {file.name}"


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

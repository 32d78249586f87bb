"""Reads that can end the process itself, tried in a child first: a library in C++ may abort on a damaged file."""

import signal
import subprocess
import sys
from collections.abc import Sequence

from facedistill.errors import UserError

SECONDS = 600


def try_in_child(code: str, files: Sequence[str], what: str) -> None:
    """Run Python `code` in a child for every file, which it finds in `file`. Raises UserError if the child fails.

    Args:
        what: the form in messages, e.g. "an Arrow stream".
    """
    loop = "import sys\nfor file in sys.argv[1:]:\n    print(file, flush=True)\n    "
    program = loop + code.strip().replace("\n", "\n    ")
    command = [sys.executable, "-P", "-c", program, *files]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"{files[0]}: not {what} that can be read: no end after {SECONDS} s") from None
    if not done.returncode:
        return
    file = (done.stdout.splitlines() or [files[0]])[-1]
    if done.returncode < 0:
        why = f"it is damaged, and reading it ends the reader ({signal.Signals(-done.returncode).name})"
    else:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise UserError(f"{file}: not {what} that can be read: {why}; take the file from its source again")

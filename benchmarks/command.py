"""The command line of a benchmark with verbs: each is the `verb` of its parser."""

import argparse
import sys
from pathlib import Path

from facedistill.errors import UserError


def run_verb(parser: argparse.ArgumentParser) -> None:
    """Call the verb that the command line names; a mistake of the user is one line, as in `facedistill`."""
    arguments = parser.parse_args()
    try:
        arguments.verb(arguments)
    except UserError as e:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {e}") from None

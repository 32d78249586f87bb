"""The command line: thin verbs that parse, call and print. Nothing heavy is imported before a verb runs."""

from facedistill.cli import deploy, evaluate, gallery, hub, models, photos, train  # noqa: F401 - they register their verbs
from facedistill.cli.app import app, main

__all__ = ["app", "main"]

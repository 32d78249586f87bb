"""The command line: thin verbs that parse, call and print. Nothing heavy is imported before a verb runs."""

from facedistill.cli import (  # noqa: F401 - they register their verbs
    deploy,
    evaluate,
    gallery,
    hallucinate,
    hub,
    models,
    photos,
    train,
)
from facedistill.cli.app import app, main

__all__ = ["app", "main"]

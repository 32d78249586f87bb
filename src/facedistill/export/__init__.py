"""From a model to a file that a device runs, proven equal before it gets its name."""

from facedistill.export.deployable import Deployable, Form
from facedistill.export.export import TARGETS, Export, export_model
from facedistill.export.gate import Gate
from facedistill.export.target import Run, Target

__all__ = ["TARGETS", "Deployable", "Export", "Form", "Gate", "Run", "Target", "export_model"]

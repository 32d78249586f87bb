"""From a model to a file that a device runs, proven equal before it gets its name."""

from facedistill.export.bench import bench
from facedistill.export.deployable import Deployable, Form
from facedistill.export.executorch import ExecuTorch
from facedistill.export.export import Export, export_model
from facedistill.export.gate import Gate
from facedistill.export.litert import LiteRT
from facedistill.export.onnx import Onnx
from facedistill.export.target import Run, Target

TARGETS: dict[str, type[Target]] = {"onnx": Onnx, "litert": LiteRT, "executorch": ExecuTorch}

__all__ = ["TARGETS", "Deployable", "Export", "Form", "Gate", "Run", "Target", "bench", "export_model"]

"""Half precision for ONNX graphs."""

from typing import Any


def half(graph: Any) -> Any:
    """Return the graph with weights and arithmetic in float16; input and output stay as they are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(graph, keep_io_types=True)

"""PReLU as convolutions: the same values for slopes of any sign."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from facedistill.export.graph import tidied, without_prelu


@pytest.mark.parametrize(
    ("slopes", "stays"), [((0.0, 0.25, 2.0), False), ((-0.5, 0.25, 1.0), False), ((-0.5, 0.25, 2.0), True)]
)
def test_prelu_becomes_convolutions_of_the_same_values(slopes: tuple[float, ...], stays: bool) -> None:
    prelu = nn.PReLU(3)
    prelu.weight.data = torch.tensor(slopes)
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), prelu).eval()
    x = torch.randn(2, 3, 5, 5)
    program = torch.onnx.export(network, (x,), input_names=["x"], dynamo=True, verbose=False)
    assert program is not None
    for for_int8 in (False, True):
        graph = without_prelu(tidied(program.model_proto), for_int8)
        assert any(node.op_type == "PRelu" for node in graph.graph.node) == stays
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, network(x).detach().numpy(), atol=1e-6)

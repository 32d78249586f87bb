"""The composed student: the sum of two networks, made again from its spec, and loaded as a whole or in part."""

from pathlib import Path

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone
from facedistill.errors import UsageError
from facedistill.models.folder import load_model, save_model
from facedistill.models.model import InputSpec, Model

SMALL = {"width": 0.125}


def test_it_is_the_sum_of_two_networks_of_one_kind() -> None:
    network = create_backbone("residual", 8, 32, network="iresnet18", options=SMALL).eval()
    x = torch.randn(2, 3, 32, 32)
    parts = network.parts(x)
    assert tuple(parts) == network.part_names == ("student", "assistant")
    (s, s_maps), (a, a_maps) = parts.values()
    assert not torch.equal(s, a)
    embedding, maps = network.with_features(x)
    torch.testing.assert_close(embedding, s + a)
    torch.testing.assert_close(network(x), s + a)
    for found, own, other in zip(maps, s_maps, a_maps, strict=True):
        torch.testing.assert_close(found, own + other)


def test_it_costs_twice_one_of_them() -> None:
    pair = create_backbone("residual", 8, 32, options=SMALL)
    one = create_backbone("mobilefacenet", 8, 32, output="affine", **SMALL)
    assert count_macs(pair, 32) == 2 * count_macs(one, 32)
    assert count_parameters(pair) == 2 * count_parameters(one)


def test_the_last_scale_is_trained_unless_the_options_say_otherwise() -> None:
    assert create_backbone("residual", 8, 32, options=SMALL).spec["options"]["options"] == SMALL | {"output": "affine"}
    plain = create_backbone("residual", 8, 32, options=SMALL | {"output": "plain"})
    assert plain.spec["options"]["options"]["output"] == "plain"
    with pytest.raises(UsageError, match="did you mean 'width'"):
        create_backbone("residual", 8, 32, options={"widht": 0.5})
    with pytest.raises(UsageError, match="did you mean 'mobilefacenet'"):
        create_backbone("residual", 8, 32, network="mobilfacenet")


def test_a_model_is_saved_and_loaded_as_one_and_its_parts_add_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = create_backbone("residual", 6, 32, options=SMALL)
    projection = torch.nn.Linear(6, 4, bias=False)
    spec = InputSpec(32, "bgr", (1.0, 2.0, 3.0), (50.0,))
    model = Model(backbone, spec, offset=torch.randn(4), projection=projection, space="space of another").eval()
    images = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8)
    save_model(model, tmp_path / "whole")
    again = load_model(tmp_path / "whole")
    torch.testing.assert_close(again(images), model(images))

    output = again.outputs(images, features=False)
    torch.testing.assert_close(output.embedding, model(images))
    added = output.parts["student"].embedding + output.parts["assistant"].embedding
    torch.testing.assert_close(added, model(images))

    save_model(again.part("student"), tmp_path / "student")
    student = load_model(tmp_path / "student")
    torch.testing.assert_close(student(images), output.parts["student"].embedding)
    assert (student.space, student.made["part"]) == (model.space, "student")
    assert 2 * (student.parameters_count() - 24) == model.parameters_count() - 24
    with pytest.raises(UsageError, match="no part 'assistent'; this network has student, assistant"):
        model.part("assistent")
    with pytest.raises(UsageError, match="no parts"):
        student.part("student")

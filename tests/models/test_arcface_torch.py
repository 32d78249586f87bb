"""Class matrices: shards of any naming, and files that hold none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from facedistill.backbones import create_backbone
from facedistill.errors import UserError
from facedistill.models.arcface_torch import find_backbone, load_classifier

DIM = 16


def rows(count: int) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(1))


def write(folder: Path, name: str, weight: Tensor, start: int = 0, shards: int = 12) -> list[Path]:
    """Write the shards; return them as a shell sorts them."""
    for i, part in enumerate(weight.chunk(shards), start):
        path = folder / name.format(i)
        path.parent.mkdir(exist_ok=True)
        torch.save({"weight": part.clone()}, path)
    return sorted(folder.glob("**/*.p*"))


NAMES = ["HEAD_Epoch_8_Split_{}_checkpoint.pth", "part-{}.pt", "w{}.pt", "rank{}/w.pt", "rank{0}/shard_{0}.pt"]
NAMES += ["classifier_rank{}.pt", "head-{:05}-of-00012.pth", "mp_rank_{:02}_model.pt"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turned_round", [False, True])
def test_shards_are_joined_in_the_order_of_their_numbers(tmp_path: Path, name: str, turned_round: bool) -> None:
    weight = rows(24)
    paths = write(tmp_path, name, weight)
    found = load_classifier(paths[::-1] if turned_round else paths, DIM)
    torch.testing.assert_close(found.weight, nn.functional.normalize(weight))


def test_numbers_may_begin_at_one(tmp_path: Path) -> None:
    weight = rows(24)
    found = load_classifier(write(tmp_path, "w{}.pt", weight, start=1), DIM)
    torch.testing.assert_close(found.weight, nn.functional.normalize(weight))


@pytest.mark.parametrize("name", [NAMES[0], "part-{}.pt", "classifier_rank{}.pt"])
def test_one_shard_or_the_folder_means_all(tmp_path: Path, name: str) -> None:
    weight = rows(24)
    paths = write(tmp_path, name, weight)
    for files in (paths[3], tmp_path):
        torch.testing.assert_close(load_classifier(files, DIM).weight, nn.functional.normalize(weight))


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    paths = write(tmp_path, "w{}.pt", rows(24))
    with pytest.raises(UserError, match="rank 7 is missing"):
        load_classifier([p for p in paths if p.name != "w7.pt"], DIM)
    (tmp_path / "of").mkdir()
    paths = write(tmp_path / "of", "head-{:05}-of-00012.pt", rows(24))
    with pytest.raises(UserError, match="rank 11 is missing"):
        load_classifier(paths[:-1], DIM)


def test_names_without_an_order_are_refused(tmp_path: Path) -> None:
    for name in ("first.pt", "second.pt", "a1.pt", "b2.pt", "e1_s0.pt", "e2_s1.pt", "s1.pt", "s01.pt"):
        torch.save(rows(3), tmp_path / name)
    for pair in (("first", "second"), ("a1", "b2"), ("e1_s0", "e2_s1"), ("s1", "s01"), ("first", "first")):
        with pytest.raises(UserError, match="do not show their order; name them alike"):
            load_classifier([tmp_path / f"{name}.pt" for name in pair], DIM)


def test_shards_of_two_kinds_in_one_folder(tmp_path: Path) -> None:
    write(tmp_path, "w_rank{}.pt", rows(6), shards=2)
    write(tmp_path, "m_rank{}.pt", rows(6), shards=2)
    with pytest.raises(UserError, match=r"shards of 2 kinds .m_rankN\.pt, w_rankN\.pt"):
        load_classifier(tmp_path, DIM)
    assert len(load_classifier(tmp_path / "w_rank1.pt", DIM)) == 6


def _other_network() -> dict[str, Tensor]:
    """A network that we do not know; its last layer is a matrix with a side of the right length."""
    return {
        "stem.weight": torch.randn(8, 3, 3, 3),
        "fc.weight": torch.randn(DIM, 40),
        "norm.running_mean": torch.ones(8),
    }


def test_the_layers_of_a_network_are_no_class_matrix(tmp_path: Path) -> None:
    ours = create_backbone("iresnet18", DIM, 48, width=0.125).state_dict()
    nested = {"state_dict": {f"module.{name}": t for name, t in ours.items()}}
    for content in (ours, nested, _other_network(), {"model": _other_network()}):
        torch.save(content, tmp_path / "backbone.pth")
        with pytest.raises(UserError, match=r"no class matrix .found "):
            load_classifier(tmp_path / "backbone.pth", DIM)


def test_the_head_beside_a_network_is_found(tmp_path: Path) -> None:
    weight = rows(7)
    ours = create_backbone("iresnet18", DIM, 48, width=0.125).state_dict()
    for content in (
        ours | {"head.kernel": weight.T.contiguous()},
        {"model": _other_network(), "head": {"weight": weight}},
        {"features": ours, "fc.weight": weight.T.contiguous()},  # MagFace
        {"arcface": {"weight": weight}},  # TFace
        {"partial_fc.weight": weight, "partial_fc.batch_mean": torch.ones(1)},  # CVLface
    ):
        torch.save(content, tmp_path / "net.pt")
        found = load_classifier(tmp_path / "net.pt", DIM)
        torch.testing.assert_close(found.weight, nn.functional.normalize(weight))


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (torch.ones(3, DIM, dtype=torch.int8), "W is int8; expected floating-point"),
        (torch.full((3, DIM), torch.nan), "row 0 .* not finite"),
    ],
)
def test_rows_are_finite_numbers(tmp_path: Path, weight: Tensor, reason: str) -> None:
    torch.save(weight, tmp_path / "head.pt")
    with pytest.raises(UserError, match=reason):
        load_classifier(tmp_path / "head.pt", DIM)


def test_the_backbone_of_tfaces_folder(tmp_path: Path) -> None:
    (tmp_path / "Backbone_Epoch_8_checkpoint.pth").touch()
    assert find_backbone(tmp_path).name == "Backbone_Epoch_8_checkpoint.pth"
    (tmp_path / "Backbone_Epoch_9_checkpoint.pth").touch()
    with pytest.raises(UserError, match=r"2 backbones .*or give the file itself"):
        find_backbone(tmp_path)

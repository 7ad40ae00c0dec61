"""Export of the towers as ONNX encoders and safetensors weights."""

import warnings
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from index.encoders import MODALITY_PREFIX, USER_INPUTS
from trainer.tensor_file import save_tensors
from trainer.towers import ItemTower, Towers, UserTower

OPSET = 20


class ContentPath(nn.Module):
    """Item tower for new items: content features with the unknown-item embedding."""

    def __init__(self, tower: ItemTower) -> None:
        super().__init__()
        unknown = tower.ids.weight[tower.unknown_row].detach().clone()
        self.register_buffer("unknown", unknown)
        self.tower = tower

    def forward(self, features: list[Tensor], presence: Tensor) -> Tensor:
        """Encode [batch, raw dim] features per modality with presence [batch, modalities]."""
        unknown = cast(Tensor, self.unknown).expand(presence.shape[0], -1)  # exports no id table
        return self.tower.combine(unknown, features, presence)


def export_towers(towers: Towers, folder: Path) -> None:
    """Write `user_encoder.onnx`, `towers.safetensors` and, with modalities, `item_encoder.onnx`.

    Without content a new item cannot be encoded.
    """
    towers = towers.cpu().eval()
    export_user_tower(towers.user, folder / "user_encoder.onnx")
    if towers.item.names:
        export_item_tower(towers.item, folder / "item_encoder.onnx")
    save_tensors(folder / "towers.safetensors", towers.state_dict())


def export_user_tower(tower: UserTower, path: Path) -> None:
    """Write (history vectors [b, L, d], mask [b, L]) -> queries [b, d]; b and L dynamic."""
    dim, max_length = tower.keys.in_features, len(tower.positions.weight)
    length = min(3, max_length)
    mask = torch.ones(2, length, dtype=torch.bool)
    names = [*USER_INPUTS, "queries"]
    axes = {name: {0: "batch", 1: "length"} for name in USER_INPUTS} | {"queries": {0: "batch"}}
    _export(tower, (torch.zeros(2, length, dim), mask), axes, names, path)


def export_item_tower(tower: ItemTower, path: Path) -> None:
    """Write (features per modality [b, raw dim], presence [b, modalities]) -> vectors [b, d]."""
    dims = [projection.in_features for projection in tower.projections]
    features = [torch.zeros(2, int(dim)) for dim in dims]  # type: ignore[arg-type]
    presence = torch.ones(2, len(dims), dtype=torch.bool)
    names = [*(MODALITY_PREFIX + name for name in tower.names), "presence", "vectors"]
    axes = {name: {0: "batch"} for name in names}
    _export(ContentPath(tower).eval(), (features, presence), axes, names, path)


def _export(
    module: nn.Module,
    example: tuple[object, ...],
    dynamic_axes: dict[str, dict[int, str]],
    names: list[str],
    path: Path,
) -> None:
    """Export a graph with its weights; `names` are those of the inputs, then of the output.

    Uses the TorchScript exporter: 30 times as fast as the newer one, and the graphs compute the
    same bits (docs/decisions/0017).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of the exporter
        torch.onnx.export(
            module,
            example,
            str(path),
            dynamo=False,
            dynamic_axes=dynamic_axes,
            input_names=names[:-1],
            output_names=names[-1:],
            opset_version=OPSET,
        )

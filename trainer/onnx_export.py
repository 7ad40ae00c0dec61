"""The towers as ONNX graphs and as weights: what a bundle holds of them."""

import logging
import warnings
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import Dim

from index.encoders import MODALITY_PREFIX, USER_INPUTS
from trainer.towers import ItemTower, Towers, UserTower

OPSET = 20


class ContentPath(nn.Module):
    """The item tower as a new item sees it: no id, content alone."""

    def __init__(self, tower: ItemTower) -> None:
        super().__init__()
        unknown = tower.ids.weight[tower.unknown_row].detach().clone()
        self.register_buffer("unknown", unknown)
        self.tower = tower

    def forward(self, features: list[Tensor], presence: Tensor) -> Tensor:
        """Encode [batch, raw width] rows per modality, with presence [batch, modalities]."""
        own = cast(Tensor, self.unknown).expand(presence.shape[0], -1)  # the table stays at home
        return self.tower.combine(own, features, presence)


def export_towers(towers: Towers, folder: Path) -> None:
    """Write `user_encoder.onnx`, `towers.safetensors`, and `item_encoder.onnx`.

    The item encoder is left out where there is no modality: without content nothing can be said
    of a new item.
    """
    towers = towers.cpu().eval()
    export_user_tower(towers.user, folder / "user_encoder.onnx")
    if towers.item.names:
        export_item_tower(towers.item, folder / "item_encoder.onnx")
    weights = {name: one.contiguous() for name, one in towers.state_dict().items()}
    (folder / "towers.safetensors").write_bytes(save(weights))


def export_user_tower(tower: UserTower, path: Path) -> None:
    """Write (history vectors [b, L, d], mask [b, L]) -> queries [b, d], b and L free."""
    width, longest = tower.keys.in_features, len(tower.positions.weight)
    length = min(3, longest)
    mask = torch.ones(2, length, dtype=torch.bool)
    batch_dim = Dim("batch", min=1)
    length_dim = Dim("length", min=1, max=longest) if longest > 1 else Dim.STATIC
    free = {0: batch_dim, 1: length_dim}
    names = [*USER_INPUTS, "queries"]
    _export(tower, (torch.zeros(2, length, width), mask), (free, free), names, path)


def export_item_tower(tower: ItemTower, path: Path) -> None:
    """Write (raw rows per modality [b, width], presence [b, modalities]) -> vectors [b, d]."""
    batch_dim = Dim("batch", min=1)
    widths = [one.in_features for one in tower.projections]
    features = [torch.zeros(2, int(width)) for width in widths]  # type: ignore[arg-type]
    presence = torch.ones(2, len(widths), dtype=torch.bool)
    free = {0: batch_dim}
    names = [*(MODALITY_PREFIX + name for name in tower.names), "presence", "vectors"]
    example, dynamic = (features, presence), ([free] * len(widths), free)
    _export(ContentPath(tower).eval(), example, dynamic, names, path)


def _export(
    module: nn.Module,
    example: tuple[object, ...],
    dynamic: tuple[object, ...],
    names: list[str],
    path: Path,
) -> None:
    """Export one graph, weights inside the file, without the exporter's warnings.

    names  of the inputs, then of the output
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=names[:-1],
            output_names=names[-1:],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)

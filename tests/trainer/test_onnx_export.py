import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from index.encoders import ItemEncoder, UserEncoder
from tests.support.training_data import WIDTH, unit
from trainer.config import TowersConfig
from trainer.onnx_export import export_item_tower, export_towers, export_user_tower
from trainer.towers import build_towers

RAW = {"sight": 5, "sound": 3}
CLOSE = {"rtol": 0, "atol": 2e-6}


def towers(raw=RAW, item_count=12, is_ordered=True, length=8):
    means = {name: torch.linspace(0, 1, width) for name, width in raw.items()}
    config = TowersConfig(embedding_dim=WIDTH, history_length=length, id_init_std=0.2)
    made = build_towers(item_count, means, config, is_ordered, seed=0)
    torch.nn.init.normal_(made.user.positions.weight, generator=torch.Generator().manual_seed(1))
    return made.eval()


def histories(batch, length, seed=0):
    """Unit vectors, and masks of the lengths 1 to `length` in turn."""
    vectors = unit(batch * length, seed).reshape(batch, length, WIDTH)
    return vectors, torch.arange(length) <= torch.arange(batch)[:, None] % length


@pytest.fixture(scope="module", params=[True, False], ids=["ordered", "unordered"])
def user_tower(request, tmp_path_factory):
    """The user tower in torch, and as an ONNX encoder."""
    path = tmp_path_factory.mktemp("user") / "user_encoder.onnx"
    tower = towers(is_ordered=request.param).user
    export_user_tower(tower, path)
    return tower, UserEncoder(path, 8)


@pytest.mark.parametrize("batch", [1, 2, 33])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_user_encoder_matches_torch(user_tower, batch, length):
    tower, encoder = user_tower
    vectors, mask = histories(batch, length)
    with torch.no_grad():
        expected = tower(vectors, mask).numpy()
    np.testing.assert_allclose(encoder.encode(vectors.numpy(), mask.numpy()), expected, **CLOSE)


def test_user_encoder_ignores_padding(user_tower):
    _, encoder = user_tower
    table = unit(20).numpy()
    short, long = np.array([3, 4], np.int32), np.arange(8, dtype=np.int32)
    alone = encoder.encode_histories(table, [short])
    beside = encoder.encode_histories(table, [long, short])
    np.testing.assert_allclose(beside[1], alone[0], **CLOSE)


def test_user_encoder_truncates_history_to_newest_items(user_tower):
    _, encoder = user_tower
    table = unit(20).numpy()
    full = np.arange(20, dtype=np.int32)
    queries = encoder.encode_histories(table, [full, full[-8:]])
    np.testing.assert_allclose(queries[0], queries[1], **CLOSE)


def test_export_user_tower_supports_history_length_1(tmp_path):
    tower = towers(length=1).user
    export_user_tower(tower, tmp_path / "user_encoder.onnx")
    encoder = UserEncoder(tmp_path / "user_encoder.onnx", 1)
    for batch in (1, 5):
        vectors, mask = histories(batch, 1)
        with torch.no_grad():
            expected = tower(vectors, mask).numpy()
        np.testing.assert_allclose(encoder.encode(vectors.numpy(), mask.numpy()), expected, **CLOSE)


def content_of(tower, rows, presence):
    ids = torch.full((len(presence),), tower.unknown_row)
    with torch.no_grad():
        return tower(ids, [torch.nan_to_num(values) for values in rows], presence).numpy()


@pytest.mark.parametrize("raw", [RAW, {"sight": 5}], ids=["two modalities", "one modality"])
def test_item_encoder_matches_content_path(tmp_path, raw):
    tower = towers(raw).item
    export_item_tower(tower, tmp_path / "item_encoder.onnx")
    encoder = ItemEncoder(tmp_path / "item_encoder.onnx")
    assert (encoder.modalities, encoder.embedding_dim) == (list(raw), WIDTH)
    for count in (1, 7):
        rows = {name: torch.randn(count, width) for name, width in raw.items()}
        rows["sight"][0] = float("nan")
        presence = torch.stack([~values.isnan().all(dim=1) for values in rows.values()], dim=1)
        vectors = encoder.encode({name: values.numpy() for name, values in rows.items()}, count)
        np.testing.assert_allclose(vectors, content_of(tower, rows.values(), presence), **CLOSE)


def test_item_encoder_treats_omitted_modality_as_missing(tmp_path):
    tower = towers().item
    export_item_tower(tower, tmp_path / "item_encoder.onnx")
    sight = torch.randn(4, 5)
    vectors = ItemEncoder(tmp_path / "item_encoder.onnx").encode({"sight": sight.numpy()}, 4)
    presence = torch.tensor([[True, False]]).expand(4, 2)
    expected = content_of(tower, [sight, torch.zeros(4, 3)], presence)
    np.testing.assert_allclose(vectors, expected, **CLOSE)


@pytest.mark.parametrize("name", ["clip.v2", "a-b", "titles (en)", "ton_höhe"])
def test_export_item_tower_accepts_any_modality_name(tmp_path, name):
    export_item_tower(towers({name: 4}).item, tmp_path / "item_encoder.onnx")
    assert ItemEncoder(tmp_path / "item_encoder.onnx").modalities == [name]


def test_export_towers_without_modality_has_no_item_encoder(tmp_path):
    export_towers(towers({}), tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"user_encoder.onnx", "towers.safetensors"}


def test_item_encoder_size_is_independent_of_catalogue(tmp_path):
    sizes = []
    for count in (100, 10_000):
        export_item_tower(towers(item_count=count).item, tmp_path / f"{count}.onnx")
        sizes.append((tmp_path / f"{count}.onnx").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 100


def test_towers_safetensors_contains_all_weights(tmp_path):
    made = towers({"sight": 5})
    export_towers(made, tmp_path)
    saved = load_file(tmp_path / "towers.safetensors")
    assert saved.keys() == made.state_dict().keys()
    assert all(torch.equal(saved[name], weight) for name, weight in made.state_dict().items())

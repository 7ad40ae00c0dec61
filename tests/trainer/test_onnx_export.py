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
    """Unit rows, and masks of every length from 1 to `length` in turn."""
    vectors = unit(batch * length, seed).reshape(batch, length, WIDTH)
    return vectors, torch.arange(length) <= torch.arange(batch)[:, None] % length


@pytest.fixture(scope="module", params=[True, False], ids=["ordered", "unordered"])
def user_tower(request, tmp_path_factory):
    """The user tower in torch, and read back from its file."""
    path = tmp_path_factory.mktemp("user") / "user_encoder.onnx"
    tower = towers(is_ordered=request.param).user
    export_user_tower(tower, path)
    return tower, UserEncoder(path, 8)


@pytest.mark.parametrize("batch", [1, 2, 33])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_the_user_encoder_answers_as_torch_does(user_tower, batch, length):
    tower, encoder = user_tower
    vectors, mask = histories(batch, length)
    with torch.no_grad():
        wanted = tower(vectors, mask).numpy()
    np.testing.assert_allclose(encoder.encode(vectors.numpy(), mask.numpy()), wanted, **CLOSE)


def test_the_user_encoder_answers_alike_padded_and_short(user_tower):
    _, encoder = user_tower
    table = unit(20).numpy()
    short, long = np.array([3, 4], np.int32), np.arange(8, dtype=np.int32)
    alone = encoder.encode_histories(table, [short])
    beside = encoder.encode_histories(table, [long, short])
    np.testing.assert_allclose(beside[1], alone[0], **CLOSE)


def test_a_history_longer_than_the_tower_reads_is_cut_to_the_newest(user_tower):
    _, encoder = user_tower
    table = unit(20).numpy()
    whole = np.arange(20, dtype=np.int32)
    found = encoder.encode_histories(table, [whole, whole[-8:]])
    np.testing.assert_allclose(found[0], found[1], **CLOSE)


def test_a_tower_that_reads_one_item_is_exported_too(tmp_path):
    tower = towers(length=1).user
    export_user_tower(tower, tmp_path / "user_encoder.onnx")
    encoder = UserEncoder(tmp_path / "user_encoder.onnx", 1)
    for batch in (1, 5):
        vectors, mask = histories(batch, 1)
        with torch.no_grad():
            wanted = tower(vectors, mask).numpy()
        np.testing.assert_allclose(encoder.encode(vectors.numpy(), mask.numpy()), wanted, **CLOSE)


def content_of(tower, rows, presence):
    ids = torch.full((len(presence),), tower.unknown_row)
    with torch.no_grad():
        return tower(ids, [torch.nan_to_num(one) for one in rows], presence).numpy()


@pytest.mark.parametrize("raw", [RAW, {"sight": 5}], ids=["two modalities", "one modality"])
def test_the_item_encoder_answers_as_the_content_path_does(tmp_path, raw):
    tower = towers(raw).item
    export_item_tower(tower, tmp_path / "item_encoder.onnx")
    encoder = ItemEncoder(tmp_path / "item_encoder.onnx")
    assert (encoder.modalities, encoder.embedding_dim) == (list(raw), WIDTH)
    for count in (1, 7):
        rows = {name: torch.randn(count, width) for name, width in raw.items()}
        rows["sight"][0] = float("nan")
        presence = torch.stack([~one.isnan().all(dim=1) for one in rows.values()], dim=1)
        found = encoder.encode({name: one.numpy() for name, one in rows.items()}, count)
        np.testing.assert_allclose(found, content_of(tower, rows.values(), presence), **CLOSE)


def test_a_modality_left_out_counts_as_missing(tmp_path):
    tower = towers().item
    export_item_tower(tower, tmp_path / "item_encoder.onnx")
    sight = torch.randn(4, 5)
    found = ItemEncoder(tmp_path / "item_encoder.onnx").encode({"sight": sight.numpy()}, 4)
    presence = torch.tensor([[True, False]]).expand(4, 2)
    wanted = content_of(tower, [sight, torch.zeros(4, 3)], presence)
    np.testing.assert_allclose(found, wanted, **CLOSE)


@pytest.mark.parametrize("name", ["clip.v2", "a-b", "titles (en)", "ton_höhe"])
def test_a_modality_may_have_any_name_that_a_file_has(tmp_path, name):
    export_item_tower(towers({name: 4}).item, tmp_path / "item_encoder.onnx")
    assert ItemEncoder(tmp_path / "item_encoder.onnx").modalities == [name]


def test_without_modality_there_is_no_item_encoder(tmp_path):
    export_towers(towers({}), tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"user_encoder.onnx", "towers.safetensors"}


def test_the_item_encoder_does_not_hold_the_ids_of_the_catalogue(tmp_path):
    sizes = []
    for count in (100, 10_000):
        export_item_tower(towers(item_count=count).item, tmp_path / f"{count}.onnx")
        sizes.append((tmp_path / f"{count}.onnx").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 100


def test_the_weights_file_holds_both_towers_whole(tmp_path):
    made = towers({"sight": 5})
    export_towers(made, tmp_path)
    saved = load_file(tmp_path / "towers.safetensors")
    assert saved.keys() == made.state_dict().keys()
    assert all(torch.equal(saved[name], one) for name, one in made.state_dict().items())

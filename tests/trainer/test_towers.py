import numpy as np
import pytest
import torch

from tests.support.training_data import LENGTH, WIDTH, tiny_config, unit
from trainer.item_features import build_item_features, map_modalities
from trainer.towers import build_towers

RAW = {"sound": 3, "sight": 5}


def features(count, seed=0):
    made = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, generator=made) for name, width in RAW.items()}


def towers(item_count=10, is_ordered=True, seed=0, raw=RAW):
    means = {name: torch.full((width,), 0.1) for name, width in raw.items()}
    made = build_towers(item_count, means, tiny_config().towers, is_ordered, seed)
    torch.nn.init.normal_(made.user.positions.weight, generator=torch.Generator().manual_seed(1))
    return made


def catalogue(counts, count=10):
    rows = {name: values.numpy() for name, values in features(count).items()}
    rows["sight"][3] = float("nan")
    return build_item_features(rows, torch.tensor(counts).numpy(), torch.device("cpu"))


def padded(history, length):
    """A history [count, dim] padded with noise, and its mask; a batch of one."""
    noise = unit(length - len(history), seed=99) * 7
    return torch.cat([history, noise])[None], torch.arange(length)[None] < len(history)


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_user_tower_ignores_padding(is_ordered, count):
    tower = towers(is_ordered=is_ordered).user
    short, long = (tower(*padded(unit(count), length)) for length in (count, LENGTH))
    assert torch.allclose(short, long, atol=1e-6)


def test_towers_return_unit_vectors():
    made = towers()
    queries = made.user(unit(12).reshape(3, 4, WIDTH), torch.ones(3, 4, dtype=torch.bool))
    vectors = catalogue([1] * 10).encode_all(made.item)
    for rows in (queries, vectors):
        assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-6)


def test_user_tower_uses_order_only_if_ordered():
    history, mask = unit(4)[None], torch.ones(1, 4, dtype=torch.bool)
    for is_ordered in (True, False):
        tower = towers(is_ordered=is_ordered).user
        forth, back = tower(history, mask), tower(history.flip(1), mask)
        assert torch.allclose(forth, back, atol=1e-6) is not is_ordered


def test_item_tower_ignores_values_of_missing_modality():
    tower = towers().item
    rows, presence = list(features(2).values()), torch.tensor([[True, False], [True, True]])
    other = [rows[0], rows[1] + 1e6]
    ids = torch.tensor([0, 1])
    vectors, changed = tower(ids, rows, presence), tower(ids, other, presence)
    assert torch.equal(vectors[0], changed[0])
    assert not torch.allclose(vectors[1], changed[1])
    with torch.no_grad():
        tower.missing[1] += 1
    assert not torch.allclose(tower(ids, rows, presence)[0], vectors[0])
    assert torch.equal(tower(ids, rows, presence)[1], vectors[1])


def test_item_features_mark_missing_rows_and_stay_finite():
    items = catalogue([1] * 10)
    assert items.presence[:, 1].tolist() == [row != 3 for row in range(10)]
    _, sight = items.gather(torch.arange(10))
    assert (sight[3] == 0).all()
    present = sight[items.presence[:, 1]]
    assert torch.allclose(items.means()["sight"], present.mean(dim=0), atol=1e-6)


def test_item_features_share_float16_arrays_without_copy():
    rows = torch.randn(4, 3).half().numpy()
    items = build_item_features({"sound": rows}, np.ones(4, np.int64), torch.device("cpu"))
    assert np.shares_memory(items.features["sound"].numpy(), rows)
    (gathered,) = items.gather(torch.tensor([2, 0]))
    assert gathered.dtype == torch.float32
    assert torch.equal(gathered, torch.from_numpy(rows[[2, 0]].astype(np.float32)))


def test_map_modalities_stores_float16_only_if_exact(tmp_path):
    half = np.float32([[0.5, -2], [np.nan, np.nan], [65504, 0]])
    modalities = {"half": half, "fine": half + np.float32(1e-4), "large": half * 2}
    mapped = map_modalities(modalities, tmp_path)
    dtypes = {name: values.dtype for name, values in mapped.items()}
    assert dtypes == {"half": np.float16, "fine": np.float32, "large": np.float32}
    for name, values in modalities.items():
        assert np.array_equal(mapped[name], values, equal_nan=True)
    assert list(tmp_path.iterdir()) == []


def test_mapped_items_are_encoded_as_before(tmp_path):
    rows = {name: values.half().float().numpy() for name, values in features(10).items()}
    items, mapped = (
        build_item_features(values, np.ones(10, np.int64), torch.device("cpu"))
        for values in (rows, map_modalities(rows, tmp_path))
    )
    made = towers().item
    assert torch.equal(items.encode_all(made), mapped.encode_all(made))
    means = zip(items.means().values(), mapped.means().values(), strict=True)
    assert all(torch.equal(left, right) for left, right in means)


def test_cold_item_is_encoded_from_content_only():
    made, items = towers(8).item, catalogue([1, 0, 1, 0, 1, 1, 1, 1, 1, 1])
    vectors = items.encode_all(made)
    content = items.encode(made, torch.arange(10), hidden=torch.ones(10, dtype=torch.bool))
    is_content = (vectors == content).all(dim=1)
    assert is_content.tolist() == [row in (1, 3) for row in range(10)]


def test_id_dropout_makes_equal_content_encode_equally():
    made, items = towers().item, catalogue([1] * 10)
    same = torch.tensor([4, 4])
    items.id_rows[:] = torch.arange(10)
    apart = made(torch.tensor([4, 5]), items.gather(same), items.presence[same])
    hidden = items.encode(made, same, hidden=torch.tensor([True, True]))
    half = items.encode(made, same, hidden=torch.tensor([True, False]))
    assert not torch.allclose(apart[0], apart[1])
    assert torch.allclose(hidden[0], hidden[1])  # equal up to rounding
    assert not torch.allclose(half[0], half[1])


def test_towers_all_weights_receive_gradients():
    made, items = towers(), catalogue([1] * 10)
    vectors = items.encode(made.item, torch.arange(10), torch.arange(10) == 0)
    queries = made.user(vectors[:8].reshape(2, 4, WIDTH), torch.ones(2, 4, dtype=torch.bool))
    (queries @ vectors[8:].T)[0].sum().backward()
    gradients = {name: weight.grad for name, weight in made.named_parameters()}
    assert [name for name, grad in gradients.items() if grad is None or not grad.any()] == []


def test_item_tower_without_modalities_uses_ids():
    made = towers(raw={}).item
    items = build_item_features({}, torch.tensor([1, 1, 0]).numpy(), torch.device("cpu"))
    assert items.encode_all(towers(3, raw={}).item).shape == (3, WIDTH)
    assert items.presence.shape == (3, 0)
    assert made.names == []


def test_build_towers_is_seeded_and_keeps_global_rng():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (towers(seed=seed).item.ids.weight for seed in (0, 0, 1))
    assert torch.rand(1) == expected
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_encode_indexed_matches_padded_forward_and_gradients(is_ordered):
    tower = towers(is_ordered=is_ordered).user
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    indices = torch.tensor([4, 0, 4, 2])  # an item may occur twice
    vectors = unit(5).requires_grad_()
    history = torch.zeros(3, 3, WIDTH)
    history[mask] = vectors[indices]
    padded_queries = tower(history, mask)
    indexed_queries = tower.encode_indexed(vectors, indices, mask)
    assert torch.allclose(indexed_queries, padded_queries, atol=1e-6)
    weights = unit(3, seed=5)
    gradients = [
        torch.autograd.grad(
            (weights * queries).sum(), [vectors, *tower.parameters()], allow_unused=True
        )
        for queries in (indexed_queries, padded_queries)
    ]
    for indexed, expected in zip(*gradients, strict=True):
        assert (indexed is None) is (expected is None)
        assert indexed is None or torch.allclose(indexed, expected, atol=1e-6)


def test_build_item_features_cold_item_has_no_id_row():
    items = catalogue([1, 0, 2, 0, 1, 1, 1, 1, 1, 1])
    assert items.num_ids == 8
    assert items.id_rows.tolist() == [0, 8, 1, 8, 2, 3, 4, 5, 6, 7]

import pytest
import torch

from tests.support.training_data import LENGTH, WIDTH, tiny_config, unit
from trainer.item_features import build_item_features
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
    """A history [count, width] filled up with rubbish, and its mask; a batch of one."""
    rubbish = unit(length - len(history), seed=99) * 7
    return torch.cat([history, rubbish])[None], torch.arange(length)[None] < len(history)


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_padding_does_not_change_a_query(is_ordered, count):
    tower = towers(is_ordered=is_ordered).user
    short, long = (tower(*padded(unit(count), length)) for length in (count, LENGTH))
    assert torch.allclose(short, long, atol=1e-6)


def test_queries_and_item_vectors_are_unit_rows():
    made = towers()
    queries = made.user(unit(12).reshape(3, 4, WIDTH), torch.ones(3, 4, dtype=torch.bool))
    vectors = catalogue([1] * 10).encode_all(made.item)
    for rows in (queries, vectors):
        assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-6)


def test_order_matters_to_an_ordered_tower_alone():
    history, mask = unit(4)[None], torch.ones(1, 4, dtype=torch.bool)
    for is_ordered in (True, False):
        tower = towers(is_ordered=is_ordered).user
        forth, back = tower(history, mask), tower(history.flip(1), mask)
        assert torch.allclose(forth, back, atol=1e-6) is not is_ordered


def test_a_missing_row_reads_the_learned_vector_whatever_number_stands_in_it():
    tower = towers().item
    rows, presence = list(features(2).values()), torch.tensor([[True, False], [True, True]])
    other = [rows[0], rows[1] + 1e6]
    ids = torch.tensor([0, 1])
    one, two = tower(ids, rows, presence), tower(ids, other, presence)
    assert torch.equal(one[0], two[0])
    assert not torch.allclose(one[1], two[1])
    with torch.no_grad():
        tower.missing[1] += 1
    assert not torch.allclose(tower(ids, rows, presence)[0], one[0])
    assert torch.equal(tower(ids, rows, presence)[1], one[1])


def test_a_missing_row_of_the_dataset_is_told_as_absent_and_finite():
    items = catalogue([1] * 10)
    assert items.presence[:, 1].tolist() == [row != 3 for row in range(10)]
    assert torch.isfinite(items.features["sight"]).all()
    present = items.features["sight"][items.presence[:, 1]]
    assert torch.allclose(items.means()["sight"], present.mean(dim=0), atol=1e-6)


def test_an_item_without_training_positive_is_encoded_by_content_alone():
    made, items = towers().item, catalogue([1, 0, 1, 0, 1, 1, 1, 1, 1, 1])
    vectors = items.encode_all(made)
    everything = torch.arange(10)
    content = items.encode(made, everything, hidden=torch.ones(10, dtype=torch.bool))
    is_content = (vectors == content).all(dim=1)
    assert is_content.tolist() == [row in (1, 3) for row in range(10)]


def test_hiding_an_id_makes_items_of_equal_content_equal():
    made, items = towers().item, catalogue([1] * 10)
    twins = torch.tensor([4, 4])
    items.id_rows[:] = torch.arange(10)
    apart = made(
        torch.tensor([4, 5]), [v[twins] for v in items.features.values()], items.presence[twins]
    )
    hidden = items.encode(made, twins, hidden=torch.tensor([True, True]))
    half = items.encode(made, twins, hidden=torch.tensor([True, False]))
    assert not torch.allclose(apart[0], apart[1])
    assert torch.allclose(hidden[0], hidden[1])  # rows of one product may differ in a last bit
    assert not torch.allclose(half[0], half[1])


def test_gradient_reaches_every_weight_of_both_towers():
    made, items = towers(), catalogue([1] * 10)
    vectors = items.encode(made.item, torch.arange(10), torch.arange(10) == 0)
    queries = made.user(vectors[:8].reshape(2, 4, WIDTH), torch.ones(2, 4, dtype=torch.bool))
    (queries @ vectors[8:].T)[0].sum().backward()
    without = [
        name for name, one in made.named_parameters() if one.grad is None or not one.grad.any()
    ]
    assert without == []


def test_a_tower_without_modalities_knows_items_by_id():
    made = towers(raw={}).item
    items = build_item_features({}, torch.tensor([1, 1, 0]).numpy(), torch.device("cpu"))
    assert items.encode_all(towers(3, raw={}).item).shape == (3, WIDTH)
    assert items.presence.shape == (3, 0)
    assert made.names == []


def test_the_seed_decides_the_weights_and_leaves_the_worlds_randomness_alone():
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    one, again, other = (towers(seed=seed).item.ids.weight for seed in (0, 0, 1))
    assert torch.rand(1) == wanted
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_histories_read_by_place_give_the_queries_and_gradients_of_padded_ones(is_ordered):
    tower = towers(is_ordered=is_ordered).user
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    places = torch.tensor([4, 0, 4, 2])  # an item may stand twice
    vectors = unit(5).requires_grad_()
    history = torch.zeros(3, 3, WIDTH)
    history[mask] = vectors[places]
    wanted, found = tower(history, mask), tower.read(vectors, places, mask)
    assert torch.allclose(found, wanted, atol=1e-6)
    weights = unit(3, seed=5)
    gradients = [
        torch.autograd.grad(
            (weights * queries).sum(), [vectors, *tower.parameters()], allow_unused=True
        )
        for queries in (found, wanted)
    ]
    for one, other in zip(*gradients, strict=True):
        assert (one is None) is (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-6)

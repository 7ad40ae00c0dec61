import torch
from hypothesis import given, settings, strategies as st

from tests.support.training_data import as_histories
from trainer.seen_items import MAX_TABLE_CELLS, build_seen_items

ITEM_COUNT = 12
ITEMS = st.integers(0, ITEM_COUNT - 1)
CPU = torch.device("cpu")


@st.composite
def questions(draw):
    """Who took what (some took nothing), a batch of users, and rows that may repeat."""
    taken = draw(st.lists(st.lists(ITEMS, unique=True, max_size=6), min_size=1, max_size=5))
    taken[0] = [*taken[0], *({0} - set(taken[0]))]  # someone took something
    users = draw(st.lists(st.integers(0, len(taken) - 1), min_size=1, max_size=6))
    return taken, users, draw(st.lists(ITEMS, min_size=1, max_size=9))


def by_brute_force(taken, users, rows):
    return [[item in taken[user] for item in rows] for user in users]


@given(questions(), st.sampled_from([0, MAX_TABLE_CELLS]))
@settings(deadline=None, derandomize=True)
def test_shared_rows_agree_with_brute_force(question, most_cells):
    taken, users, rows = question
    known = build_seen_items(as_histories(taken), ITEM_COUNT, CPU, most_cells)
    assert (known.table is None) == (most_cells == 0)
    found = known.of(torch.tensor(users), torch.tensor(rows))
    assert found.tolist() == by_brute_force(taken, users, rows)


@given(questions())
@settings(deadline=None, derandomize=True)
def test_rows_of_ones_own_agree_with_shared_ones(question):
    taken, users, rows = question
    known = build_seen_items(as_histories(taken), ITEM_COUNT, CPU)
    own = torch.tensor(rows).expand(len(users), -1)
    assert known.of(torch.tensor(users), own).tolist() == by_brute_force(taken, users, rows)


def test_every_row_may_ask_of_other_items():
    known = build_seen_items(as_histories([[3, 1], [], [2]]), ITEM_COUNT, CPU)
    asked = torch.tensor([[1, 2, 3], [1, 2, 3], [11, 2, 2]])
    assert known.of(torch.tensor([0, 1, 2]), asked).tolist() == [
        [True, False, True],
        [False, False, False],
        [False, True, True],
    ]

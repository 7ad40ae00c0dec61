import torch
from hypothesis import given, settings, strategies as st

from tests.support.training_data import as_histories
from trainer.seen_items import build_seen_items

ITEM_COUNT = 12
ITEMS = st.integers(0, ITEM_COUNT - 1)
CPU = torch.device("cpu")


@st.composite
def lookups(draw):
    """Items of each user (possibly none), a batch of users, and rows with duplicates."""
    taken = draw(st.lists(st.lists(ITEMS, unique=True, max_size=6), min_size=1, max_size=5))
    taken[0] = [*taken[0], *({0} - set(taken[0]))]  # at least one interaction
    users = draw(st.lists(st.integers(0, len(taken) - 1), min_size=1, max_size=6))
    return taken, users, draw(st.lists(ITEMS, min_size=1, max_size=9))


def by_brute_force(taken, users, rows):
    return [[item in taken[user] for item in rows] for user in users]


@given(lookups())
@settings(deadline=None, derandomize=True)
def test_seen_items_shared_rows_agree_with_brute_force(lookup):
    taken, users, rows = lookup
    seen = build_seen_items(as_histories(taken), ITEM_COUNT, CPU)
    is_seen = seen.contains(torch.tensor(users), torch.tensor(rows))
    assert is_seen.tolist() == by_brute_force(taken, users, rows)


@given(lookups())
@settings(deadline=None, derandomize=True)
def test_seen_items_per_user_rows_agree_with_brute_force(lookup):
    taken, users, rows = lookup
    seen = build_seen_items(as_histories(taken), ITEM_COUNT, CPU)
    per_user = torch.tensor(rows).expand(len(users), -1)
    is_seen = seen.contains(torch.tensor(users), per_user)
    assert is_seen.tolist() == by_brute_force(taken, users, rows)


def test_seen_items_accepts_different_rows_per_user():
    seen = build_seen_items(as_histories([[3, 1], [], [2]]), ITEM_COUNT, CPU)
    rows = torch.tensor([[1, 2, 3], [1, 2, 3], [11, 2, 2]])
    assert seen.contains(torch.tensor([0, 1, 2]), rows).tolist() == [
        [True, False, True],
        [False, False, False],
        [False, True, True],
    ]

"""The same map by hand as in test_cluster_map: cluster 0 at 0, 1 at 1, 2 at 3, and T = 1."""

import numpy as np
import pytest

from index.cluster_map import Counts, draw_negatives, negatives_for
from index.ids import build_id_table
from tests.index.test_cluster_map import assert_drawn_as_told, by_hand, everyone, rows

IDS = [f"item-{row}" for row in range(10)]


def asked(positives, counts, seed=1, clusters=None):
    return negatives_for(
        positives,
        build_id_table(IDS),
        clusters or by_hand(),
        counts,
        np.random.default_rng(seed),
    )


def test_easy_and_hard_negatives_of_an_item_come_as_often_as_the_map_tells():
    found = by_hand()
    drawn = draw_negatives(
        np.full(4_000, 0, dtype=np.int32), found, Counts(4, 3), np.random.default_rng(2)
    )
    assert drawn.rows.shape == drawn.log_counts.shape == (4_000, 7)
    assert_drawn_as_told(drawn.rows[:, :4], found.easy_chance(rows(0), everyone(found))[0])
    assert_drawn_as_told(drawn.rows[:, 4:], found.hard_chance(rows(0), everyone(found))[0])


def test_the_log_count_is_that_of_both_kinds_together():
    found, counts = by_hand(), Counts(3, 2)
    positives = rows(0, 2, 7)  # of item 7 the cell is the whole cluster: hard ones turn easy
    drawn = draw_negatives(positives, found, counts, np.random.default_rng(3))
    easy = found.easy_chance(positives, everyone(found))
    hard = found.hard_chance(positives, everyone(found))
    law = np.take_along_axis(3 * easy + 2 * hard, drawn.rows, axis=1)
    np.testing.assert_allclose(drawn.log_counts, np.log(law), rtol=1e-6)
    np.testing.assert_allclose(np.exp(drawn.log_counts[2]), 5 * easy[2, drawn.rows[2]], 1e-6)


@pytest.mark.parametrize("counts", [Counts(4, 0), Counts(0, 4)])
def test_one_kind_alone_is_counted_alone(counts):
    found = by_hand()
    drawn = draw_negatives(rows(0), found, counts, np.random.default_rng(4))
    chance = found.easy_chance if counts.easy else found.hard_chance
    np.testing.assert_allclose(drawn.log_counts, np.log(4 * chance(rows(0), drawn.rows)), rtol=1e-6)


def test_the_expected_counts_of_all_items_add_up_to_what_was_asked_for():
    found, counts = by_hand(), Counts(40_000, 60_000)
    drawn = draw_negatives(rows(0), found, counts, np.random.default_rng(5))
    expected = dict(zip(drawn.rows[0].tolist(), drawn.log_counts[0].tolist(), strict=True))
    assert sum(np.exp(list(expected.values()))) == pytest.approx(100_000, rel=1e-4)


def test_ids_come_back_in_the_order_asked_and_unknown_ones_are_told():
    found = asked(["item-7", "lost", "item-0", "item-7"], Counts(2, 1))
    assert found.positives == ["item-7", "item-0", "item-7"]
    assert found.unknown == ["lost"]
    assert found.ids == [IDS[row] for row in found.drawn.rows.reshape(-1)]
    assert len(found.ids) == 9


def test_nothing_known_or_nothing_asked_for_is_an_empty_answer():
    assert asked(["lost"], Counts(2, 1)).drawn.rows.shape == (0, 3)
    assert asked([], Counts(2, 1)).ids == []
    assert asked(["item-1"], Counts(0, 0)).drawn.rows.shape == (1, 0)


def test_a_seed_draws_the_same_again_and_another_one_does_not():
    one, again, other = (asked(IDS, Counts(5, 5), seed).ids for seed in (1, 1, 2))
    assert one == again != other


def test_with_one_cell_alone_every_item_is_expected_equally_often():
    found = by_hand(codes1=[1] * 4, codes2=[0] * 4)
    drawn = draw_negatives(rows(0, 3), found, Counts(3, 5), np.random.default_rng(6))
    np.testing.assert_allclose(drawn.log_counts, np.log(8 / 4), rtol=1e-6)

import numpy as np
import pytest

from benchmarks.proposal_variance import build_shop, chi_square, proposals_of, sample_demand


def test_chi_square_sums_covered_items_only():
    demand, counts = np.array([0.5, 0.3, 0.2]), np.array([2.0, 0.0, 0.1])
    assert chi_square(demand, counts) == pytest.approx((0.125 + 0.4, 0.3))


def test_chi_square_is_least_for_counts_like_the_demand():
    demand = np.array([0.7, 0.2, 0.1])
    assert chi_square(demand, 10 * demand)[0] == pytest.approx(0.1)
    assert chi_square(demand, np.full(3, 10 / 3))[0] > 0.1


def test_demand_and_expected_counts_are_complete():
    shop, rng = build_shop(20_000, 1), np.random.default_rng(0)
    demand = sample_demand(shop, rng)
    assert demand.sum() == pytest.approx(1)
    assert (demand >= 0).all()
    proposals = proposals_of(shop, rng)
    positive = rng.choice(20_000, 1, p=shop.share).astype(np.int32)
    totals = {name: counts(positive).sum() for name, counts in proposals.items()}
    assert totals["in-batch"] == pytest.approx(512)
    assert totals["ESANS, easy ones"] == pytest.approx(1_024)
    assert totals["ESANS, 2,048 of the histories, easy ones"] == pytest.approx(2_048 + 512)
    assert totals["ESANS, all of the histories, easy ones"] > 2_560
    assert totals["ESANS, 512 easy, 16 hard"] == pytest.approx(1_040)
    assert totals["ESANS, 0 easy, 1 hard"] == pytest.approx(512 + 1)
    histories = "ESANS, 2,048 of the histories, 256 easy, 1 hard"
    assert totals[histories] == pytest.approx(2_048 + 256 + 1)

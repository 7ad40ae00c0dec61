import numpy as np
import pytest

from benchmarks.compare.analysis import holm, paired_difference
from benchmarks.compare.trial import resampled_means


def compared(method, reference, resamples=10_000):
    return paired_difference(
        resampled_means(method, resamples), resampled_means(reference, resamples)
    )


def interval_of(difference):
    return difference["_absolute_low"], difference["_absolute_high"]


def planted(rng, cases, share):
    return (rng.random(cases) < share).astype(float)


def test_difference_of_a_better_method_is_significant():
    reference = np.repeat([1.0, 0.0], 1_000)
    method = reference.copy()
    method[1_000:1_200] = 1  # 10 % of all users more, and no user lost
    difference = compared(method, reference)
    assert difference["_absolute"] == pytest.approx(0.1)
    assert difference[""] == pytest.approx(0.2)
    assert 0.08 < difference["_absolute_low"] < 0.1 < difference["_absolute_high"] < 0.12
    assert difference["_low"] > 0
    assert difference["_p"] == pytest.approx(2 / 10_001)


def test_interval_width_matches_theory():
    reference = np.repeat([1.0, 0.0], 1_000)
    method = reference.copy()
    method[1_000:1_200] = 1
    error = np.sqrt(0.1 * 0.9 / 2_000)  # of a share of 0.1 among 2,000
    low, high = interval_of(compared(method, reference))
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_difference_of_equal_methods_is_zero():
    reference = planted(np.random.default_rng(1), 1_000, 0.3)
    difference = compared(reference, reference)
    assert (difference["_absolute"], difference[""], difference["_p"]) == (0, 0, 1)
    assert interval_of(difference) == (0, 0)


def test_difference_of_equally_good_methods_spans_zero():
    reference = np.tile([1.0, 0.0], 500)
    difference = compared(1 - reference, reference)
    assert difference["_absolute_low"] < 0 < difference["_absolute_high"]
    assert difference["_p"] > 0.5


def test_paired_difference_is_more_significant_than_unpaired():
    reference = np.repeat([1.0, 0.0], 500)
    more = reference.copy()
    more[500:520] = 1
    shuffled = np.random.default_rng(0).permutation(more)
    assert compared(more, reference)["_p"] < 0.001
    assert compared(shuffled, reference)["_p"] > 0.1


def test_swapped_methods_change_the_sign():
    rng = np.random.default_rng(2)
    method, reference = planted(rng, 500, 0.4), planted(rng, 500, 0.3)
    forward, backward = compared(method, reference), compared(reference, method)
    assert forward["_absolute"] == -backward["_absolute"]
    assert forward["_absolute_low"] == pytest.approx(-backward["_absolute_high"], abs=0.01)


def test_resampling_commutes_with_averaging():
    rng = np.random.default_rng(3)
    seeds = rng.random((5, 400))
    apart = np.mean([resampled_means(values) for values in seeds], axis=0)
    np.testing.assert_allclose(apart, resampled_means(seeds.mean(axis=0)))


def test_resamples_are_equal_for_equal_cases():
    values = np.random.default_rng(4).random(300)
    assert (resampled_means(values) == resampled_means(values)).all()
    np.testing.assert_allclose(resampled_means(1 - values), 1 - resampled_means(values))
    assert resampled_means(values)[0] == values.mean()


def test_difference_of_unequal_shapes_is_rejected():
    with pytest.raises(ValueError, match=r"method \(3,\) and reference \(4,\) must both be \[1 \+"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="reference recall is 0"):
        paired_difference(np.ones(3), np.zeros(3))


def test_holm_matches_the_step_down_procedure():
    # sorted .01 .03 .04, times 3, 2, 1: .03, .06, and .04 which may not fall below .06
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1, 1])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([]).tolist() == []

import numpy as np
import pytest

from benchmarks.compare.analysis import difference_of, holm
from benchmarks.compare.trial import resampled_means


def compared(ours, theirs, resamples=10_000):
    return difference_of(resampled_means(ours, resamples), resampled_means(theirs, resamples))


def interval_of(found):
    return found["_absolute_low"], found["_absolute_high"]


def planted(rng, cases, share):
    return (rng.random(cases) < share).astype(float)


def test_a_method_that_finds_for_a_tenth_more_users_is_above_0():
    theirs = np.repeat([1.0, 0.0], 1_000)
    ours = theirs.copy()
    ours[1_000:1_200] = 1  # 10 % of all users more, and nobody lost
    found = compared(ours, theirs)
    assert found["_absolute"] == pytest.approx(0.1)
    assert found[""] == pytest.approx(0.2)
    assert 0.08 < found["_absolute_low"] < 0.1 < found["_absolute_high"] < 0.12
    assert found["_low"] > 0
    assert found["_p"] == pytest.approx(2 / 10_001)


def test_the_interval_is_as_wide_as_theory_says():
    theirs = np.repeat([1.0, 0.0], 1_000)
    ours = theirs.copy()
    ours[1_000:1_200] = 1
    error = np.sqrt(0.1 * 0.9 / 2_000)  # of a share of 0.1 among 2,000
    low, high = interval_of(compared(ours, theirs))
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_equal_methods_are_not_told_apart():
    theirs = planted(np.random.default_rng(1), 1_000, 0.3)
    found = compared(theirs, theirs)
    assert (found["_absolute"], found[""], found["_p"]) == (0, 0, 1)
    assert interval_of(found) == (0, 0)


def test_methods_that_find_for_different_users_equally_often_are_not_told_apart():
    theirs = np.tile([1.0, 0.0], 500)
    found = compared(1 - theirs, theirs)
    assert found["_absolute_low"] < 0 < found["_absolute_high"]
    assert found["_p"] > 0.5


def test_the_same_hits_of_the_same_users_are_a_surer_sign_than_of_others():
    theirs = np.repeat([1.0, 0.0], 500)
    more = theirs.copy()
    more[500:520] = 1
    shuffled = np.random.default_rng(0).permutation(more)
    assert compared(more, theirs)["_p"] < 0.001
    assert compared(shuffled, theirs)["_p"] > 0.1


def test_swapping_the_two_turns_the_sign():
    rng = np.random.default_rng(2)
    ours, theirs = planted(rng, 500, 0.4), planted(rng, 500, 0.3)
    one, other = compared(ours, theirs), compared(theirs, ours)
    assert one["_absolute"] == -other["_absolute"]
    assert one["_absolute_low"] == pytest.approx(-other["_absolute_high"], abs=0.01)


def test_a_draw_of_the_averages_is_the_average_of_the_draws():
    rng = np.random.default_rng(3)
    seeds = rng.random((5, 400))
    apart = np.mean([resampled_means(values) for values in seeds], axis=0)
    np.testing.assert_allclose(apart, resampled_means(seeds.mean(axis=0)))


def test_two_runs_over_the_same_cases_draw_the_same_cases():
    values = np.random.default_rng(4).random(300)
    assert (resampled_means(values) == resampled_means(values)).all()
    np.testing.assert_allclose(resampled_means(1 - values), 1 - resampled_means(values))
    assert resampled_means(values)[0] == values.mean()


def test_means_that_are_not_alike_are_refused():
    with pytest.raises(ValueError, match=r"ours \(3,\) and theirs \(4,\) must be \[1 \+"):
        difference_of(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="found nothing at all"):
        difference_of(np.ones(3), np.zeros(3))


def test_holm_multiplies_by_how_many_are_left_and_never_falls():
    # sorted .01 .03 .04, times 3, 2, 1: .03, .06, and .04 which may not fall below .06
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1, 1])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([]).tolist() == []

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from index.cluster_map import ClusterMap
from tests.support.sampler_contexts import context_for, loss_of
from trainer.config import check_config
from trainer.esans.sampler import EsansSampler
from trainer.sampler_factory import build_sampler

# three clusters of four items, two cells of two in each: items 0..3, 4..7, 8..11
CODES1 = np.repeat(np.arange(3), 4).astype(np.int32)
CODES2 = np.tile([0, 0, 1, 1], 3).astype(np.int32)
CENTROIDS = np.array([[0, 0], [1, 0], [0, 3]], np.float32)
CLUSTERS = ClusterMap(CODES1, CODES2, CENTROIDS, np.arange(12, dtype=np.uint64))
SHARE = [1 / 12] * 12


def part(**settings):
    table = {"training": {"sampler": {"name": "esans", **settings}}}
    return check_config(table, "a test").training.sampler


def sample(step=0, positives=(0, 4), taken=((0, 1), (4, 9)), **settings):
    """Draw for two users: the first took items 0 and 1, the second 4 and 9."""
    context = context_for(taken, list(range(len(positives))), list(positives), SHARE, step=step)
    return context, EsansSampler(CLUSTERS, part(**settings))(context)


def test_easy_pairs_are_of_one_cluster_and_shared_by_the_batch():
    _, drawn = sample(easy=40, hard=0)
    rows = drawn.rows.reshape(-1, 2)
    assert torch.equal(torch.tensor(CODES1)[rows[:, 0]], torch.tensor(CODES1)[rows[:, 1]])
    assert drawn.vectors.shape == (40, 8)
    assert drawn.num_encoded == 40


def test_hard_negatives_share_the_cluster_and_not_the_cell():
    _, drawn = sample(easy=0, hard=5)
    assert drawn.rows.shape == (2, 5)
    assert set(drawn.rows[0].tolist()) <= {2, 3}
    assert set(drawn.rows[1].tolist()) <= {6, 7}
    assert drawn.num_encoded == len(set(drawn.rows.flatten().tolist()))


def test_items_of_the_own_cell_and_known_ones_are_masked_wherever_they_come_from():
    _, drawn = sample(easy=200, hard=2, in_batch=True)
    batch, easy, simple, hard, moved = drawn.sets()
    for each in (batch, easy):
        cells = list(zip(CODES1[each.rows], CODES2[each.rows], strict=True))
        for user, (positive, taken) in enumerate(((0, {0, 1}), (4, {4, 9}))):
            own = (CODES1[positive], CODES2[positive])
            wanted = [
                cell == own or int(row) in taken for row, cell in zip(each.rows, cells, strict=True)
            ]
            assert each.is_masked[user].tolist() == wanted
    ends = easy.is_masked[:, 0::2] | easy.is_masked[:, 1::2]
    assert torch.equal(simple.is_masked, ends.repeat(1, 2))
    assert torch.equal(moved.is_masked, hard.is_masked)


def test_there_is_a_virtual_negative_for_each_that_is_encoded():
    _, drawn = sample(easy=10, hard=3)
    easy, simple, hard, moved = drawn.sets()
    assert simple.vectors.shape == easy.vectors.shape
    assert moved.vectors.shape == hard.vectors.shape == (2, 3, 8)
    assert simple.rows is None
    assert moved.rows is None
    for virtual in (simple, moved):
        assert torch.allclose(virtual.vectors.norm(dim=-1), torch.tensor(1.0))


def test_without_virtual_negatives_only_items_are_drawn():
    _, drawn = sample(easy=10, hard=3, virtual=False)
    assert [each.rows is not None for each in list(drawn.sets())] == [True, True]


def test_easy_draws_follow_the_mean_law_of_the_batch():
    counts = np.zeros(12)
    for step in range(300):
        counts += np.bincount(sample(step, easy=40, hard=0)[1].rows, minlength=12)
    expected = CLUSTERS.shared_chance(np.array([0, 4], np.int32), np.arange(12, dtype=np.int32))
    # the two of a pair are of one cluster, so draws come in pairs: test clusters by pairs
    pairs = counts.reshape(3, 4).sum(axis=1) / 2
    chances = expected.reshape(3, 4).sum(axis=1)
    assert chisquare(pairs, chances * pairs.sum()).pvalue > 0.001
    for cluster in range(3):
        within = counts[4 * cluster : 4 * cluster + 4]
        assert chisquare(within).pvalue > 0.001


def test_log_q_is_the_log_of_all_expected_counts_times_the_share():
    positives, rows = np.array([0, 4], np.int32), np.arange(12, dtype=np.int32)
    _, drawn = sample(easy=40, hard=2, log_q_share=0.5)
    easy = next(drawn.sets())
    count = 40 * CLUSTERS.shared_chance(positives, rows)[None]
    count = count + 2 * CLUSTERS.hard_chance(positives, rows)
    expected = 0.5 * np.log(count)[:, easy.rows.numpy()]
    assert easy.log_q.numpy() == pytest.approx(expected, abs=1e-5)
    assert drawn.positive_log_q is None  # the positive is never drawn: it has no such law


def test_nothing_is_corrected_by_default():
    _, drawn = sample(easy=40, hard=2)
    assert all(not each.log_q.any() for each in list(drawn.sets()))


def test_the_weight_of_hard_negatives_raises_their_scores():
    _, drawn = sample(easy=4, hard=2, hard_log_weight=1.5)
    easy, simple, hard, moved = drawn.sets()
    assert not easy.log_q.any()
    assert not simple.log_q.any()
    assert hard.log_q.unique().tolist() == moved.log_q.unique().tolist() == [-1.5]


def test_hard_negatives_gain_their_weight_over_the_growing_steps():
    weights = [
        -list(sample(step, easy=4, hard=1, hard_warmup_steps=100)[1].sets())[2]
        .log_q.unique()
        .item()
        for step in (0, 49, 99, 500)
    ]
    assert weights == pytest.approx([np.log(0.01), np.log(0.5), 0, 0], abs=1e-6)


def test_virtual_negatives_can_weigh_less_than_those_they_are_made_of():
    _, drawn = sample(easy=4, hard=2, virtual_log_weight=-2)
    easy, simple, hard, moved = (each.log_q.unique().tolist() for each in drawn.sets())
    assert (easy, simple, hard, moved) == ([0], [2], [0], [2])


def test_off_the_sphere_mixtures_are_shorter_and_reach_beyond():
    _, drawn = sample(easy=40, hard=0, normalize_virtual=False)
    _, simple = drawn.sets()
    lengths = simple.vectors.norm(dim=-1)
    assert (lengths <= 1 + 1e-6).all()
    assert lengths.min() < 0.99


@pytest.mark.parametrize("is_stopped", [True, False])
def test_the_gradient_of_hard_virtual_negatives_stops_at_the_positive_if_told(is_stopped):
    context, _ = sample()
    positives = context.positives.clone().requires_grad_()
    settings = part(easy=0, hard=2, detach_positive=is_stopped)
    drawn = EsansSampler(CLUSTERS, settings)(replace(context, positives=positives))
    _, moved = drawn.sets()
    (gradient,) = torch.autograd.grad(moved.vectors.sum(), positives, allow_unused=True)
    assert (gradient is None) is is_stopped


def test_beside_the_batch_all_draws_have_one_law():
    share = torch.linspace(1, 2, 12) / 18
    positives = np.array([0, 4], np.int32)
    context = replace(sample()[0], target_share=share)
    settings = part(easy=40, hard=0, in_batch=True, log_q_share=1.0, virtual=False)
    drawn = EsansSampler(CLUSTERS, settings)(context)
    everything = np.arange(12, dtype=np.int32)
    law = np.log(2 * share.numpy() + 40 * CLUSTERS.shared_chance(positives, everything))
    batch, easy = drawn.sets()
    for each in (batch, easy):
        assert each.log_q.numpy() == pytest.approx(law[each.rows.numpy()], abs=1e-5)
    assert drawn.positive_log_q.numpy() == pytest.approx(law[positives], abs=1e-5)


def test_the_law_beside_the_batch_is_what_is_drawn():
    """Targets drawn by their share, easy ones for them: counts of all are as log q says."""
    rng, share = np.random.default_rng(0), np.linspace(1, 2, 12) / 18
    settings = part(easy=8, hard=0, in_batch=True, log_q_share=1.0, virtual=False)
    counts, expected = np.zeros(12), np.zeros(12)
    everything = np.arange(12, dtype=np.int32)
    for step in range(2_000):
        positives = rng.choice(12, 4, p=share).astype(np.int64)
        context = context_for([(0,)] * 4, range(4), positives.tolist(), share, step=step)
        for each in EsansSampler(CLUSTERS, settings)(context).sets():
            counts += np.bincount(each.rows, minlength=12)
        expected += 4 * share
        expected += 8 * CLUSTERS.shared_chance(positives.astype(np.int32), everything)
    # easy ones come in pairs, targets alone: the variance is at most twice that of single draws
    assert chisquare(counts / 2, expected * counts.sum() / expected.sum() / 2).pvalue > 0.001


def test_with_hard_ones_too_the_positive_has_the_law_of_the_shared_draws():
    positives = np.array([0, 4], np.int32)
    _, drawn = sample(easy=40, hard=2, in_batch=True, log_q_share=1.0)
    law = np.log(2 / 12 + 40 * CLUSTERS.shared_chance(positives, positives))
    assert drawn.positive_log_q.numpy() == pytest.approx(law, abs=1e-5)


def test_a_user_who_took_everything_gives_a_finite_loss():
    context, drawn = sample(taken=(range(12), (4,)), easy=8, hard=2)
    loss = loss_of(context, drawn)
    loss.backward()
    assert torch.isfinite(loss)


def test_the_same_step_draws_the_same_and_another_does_not():
    first, again, other = (sample(step, easy=40)[1].rows for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_sampler_that_needs_a_map_is_not_built_without():
    with pytest.raises(ValueError, match="esans needs a cluster map"):
        build_sampler(part())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"easy": 0, "hard": 0}, "nothing to draw"),
        ({"alpha_min": 0.5, "alpha_max": -0.5}, "alpha_min .0.5. must be at most"),
        ({"easy": 3}, "multiple of 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, told):
    with pytest.raises(Exception, match=told):
        part(**settings)

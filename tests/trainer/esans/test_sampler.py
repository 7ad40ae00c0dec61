from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from index.cluster_map import ClusterMap
from tests.support.sampler_contexts import context_for, loss_of
from trainer.config import validate_config
from trainer.esans.sampler import EsansSampler
from trainer.sampler_factory import build_sampler

# three clusters of four items, two cells of two in each: items 0..3, 4..7, 8..11
CODES1 = np.repeat(np.arange(3), 4).astype(np.int32)
CODES2 = np.tile([0, 0, 1, 1], 3).astype(np.int32)
CENTROIDS = np.array([[0, 0], [1, 0], [0, 3]], np.float32)
CLUSTERS = ClusterMap(CODES1, CODES2, CENTROIDS, np.arange(12, dtype=np.uint64))
SHARE = [1 / 12] * 12


def esans_config(**settings):
    table = {"training": {"sampler": {"name": "esans", "variant": "paper", **settings}}}
    return validate_config(table, "a test").training.sampler


def sample(step=0, positives=(0, 4), histories=((0, 1), (4, 9)), **settings):
    """Sample for two users; the first has seen items 0 and 1, the second 4 and 9."""
    context = context_for(histories, list(range(len(positives))), list(positives), SHARE, step=step)
    return context, EsansSampler(CLUSTERS, esans_config(**settings))(context)


def test_easy_pairs_share_a_cluster_and_the_batch():
    _, sampled = sample(easy=40, hard=0)
    rows = sampled.rows.reshape(-1, 2)
    assert torch.equal(torch.tensor(CODES1)[rows[:, 0]], torch.tensor(CODES1)[rows[:, 1]])
    assert sampled.vectors.shape == (40, 8)
    assert sampled.num_encoded == 40


def test_hard_negatives_share_cluster_but_not_cell():
    _, sampled = sample(easy=0, hard=5)
    assert sampled.rows.shape == (2, 5)
    assert set(sampled.rows[0].tolist()) <= {2, 3}
    assert set(sampled.rows[1].tolist()) <= {6, 7}
    assert sampled.num_encoded == len(set(sampled.rows.flatten().tolist()))


def test_esans_masks_same_cell_and_seen_items_of_all_sources():
    _, sampled = sample(easy=200, hard=2, in_batch=True)
    batch, easy, hard, virtual_easy, virtual_hard = sampled.sets()
    for negatives in (batch, easy):
        cells = list(zip(CODES1[negatives.rows], CODES2[negatives.rows], strict=True))
        for user, (positive, seen) in enumerate(((0, {0, 1}), (4, {4, 9}))):
            own_cell = (CODES1[positive], CODES2[positive])
            expected_mask = [
                cell == own_cell or int(row) in seen
                for row, cell in zip(negatives.rows, cells, strict=True)
            ]
            assert negatives.is_masked[user].tolist() == expected_mask
    ends = easy.is_masked[:, 0::2] | easy.is_masked[:, 1::2]
    assert torch.equal(virtual_easy.is_masked, ends.repeat(1, 2))
    assert torch.equal(virtual_hard.is_masked, hard.is_masked)


def test_esans_adds_virtual_negative_per_encoded_item():
    _, sampled = sample(easy=10, hard=3)
    easy, hard, virtual_easy, virtual_hard = sampled.sets()
    assert virtual_easy.vectors.shape == easy.vectors.shape
    assert virtual_hard.vectors.shape == hard.vectors.shape == (2, 3, 8)
    assert virtual_easy.rows is None
    assert virtual_hard.rows is None
    for virtual in (virtual_easy, virtual_hard):
        assert torch.allclose(virtual.vectors.norm(dim=-1), torch.tensor(1.0))


def test_esans_virtual_disabled_samples_items_only():
    _, sampled = sample(easy=10, hard=3, virtual=False)
    assert [negatives.rows is not None for negatives in list(sampled.sets())] == [True, True]


def test_easy_frequency_matches_mean_proposal_of_batch():
    counts = np.zeros(12)
    for step in range(300):
        counts += np.bincount(sample(step, easy=40, hard=0)[1].rows, minlength=12)
    expected = CLUSTERS.mean_easy_probability(
        np.array([0, 4], np.int32), np.arange(12, dtype=np.int32)
    )
    # both items of a pair are of one cluster, so clusters are counted by pairs
    pairs = counts.reshape(3, 4).sum(axis=1) / 2
    chances = expected.reshape(3, 4).sum(axis=1)
    assert chisquare(pairs, chances * pairs.sum()).pvalue > 0.001
    for cluster in range(3):
        within = counts[4 * cluster : 4 * cluster + 4]
        assert chisquare(within).pvalue > 0.001


def test_esans_log_q_is_share_of_log_expected_count():
    positives, rows = np.array([0, 4], np.int32), np.arange(12, dtype=np.int32)
    _, sampled = sample(easy=40, hard=2, virtual=False, log_q_share=0.5)
    easy = next(sampled.sets())
    count = 40 * CLUSTERS.mean_easy_probability(positives, rows)[None]
    count = count + 2 * CLUSTERS.hard_probability(positives, rows)
    expected = 0.5 * np.log(count)[:, easy.rows.numpy()]
    assert easy.log_q.numpy() == pytest.approx(expected, abs=1e-5)
    assert sampled.positive_log_q is None  # the positive is never sampled


def test_esans_log_q_is_zero_by_default():
    _, sampled = sample(easy=40, hard=2)
    assert all(not negatives.log_q.any() for negatives in list(sampled.sets()))


def test_esans_hard_log_weight_raises_hard_logits():
    _, sampled = sample(easy=4, hard=2, hard_log_weight=1.5)
    assert [each.log_weight for each in sampled.sets()] == [0, 1.5, 0, 1.5]
    assert not any(each.log_q.any() for each in sampled.sets())


def test_esans_hard_warmup_grows_hard_weight():
    weights = [
        list(sample(step, easy=4, hard=1, hard_warmup_steps=100)[1].sets())[1].log_weight
        for step in (0, 49, 99, 500)
    ]
    assert weights == pytest.approx([np.log(0.01), np.log(0.5), 0, 0], abs=1e-6)


def test_esans_virtual_log_weight_lowers_virtual_logits():
    _, sampled = sample(easy=4, hard=2, virtual_log_weight=-2)
    easy, hard, virtual_easy, virtual_hard = (each.log_weight for each in sampled.sets())
    assert (easy, virtual_easy, hard, virtual_hard) == (0, -2, 0, -2)


def test_esans_unnormalized_virtual_vectors_are_shorter():
    _, sampled = sample(easy=40, hard=0, normalize_virtual=False)
    _, virtual_easy = sampled.sets()
    lengths = virtual_easy.vectors.norm(dim=-1)
    assert (lengths <= 1 + 1e-6).all()
    assert lengths.min() < 0.99


@pytest.mark.parametrize("is_detached", [True, False])
def test_esans_detach_virtual_stops_gradient(is_detached):
    context, _ = sample()
    positives = context.positives.clone().requires_grad_()
    settings = esans_config(easy=4, hard=2, detach_virtual=is_detached)
    sampled = EsansSampler(CLUSTERS, settings)(replace(context, positives=positives))
    _, _, virtual_easy, virtual_hard = sampled.sets()
    assert virtual_easy.vectors.requires_grad is not is_detached
    assert virtual_hard.vectors.requires_grad is not is_detached


def test_esans_virtual_in_the_softmax_splits_the_weight():
    (_, alone), (_, doubled) = (
        sample(easy=8, hard=0, virtual=virtual, log_q_share=1.0) for virtual in (False, True)
    )
    everything = np.arange(12, dtype=np.int32)
    count = 8 * CLUSTERS.mean_easy_probability(np.array([0, 4], np.int32), everything)
    assert alone.log_q.exp().numpy() == pytest.approx(count[alone.rows], rel=1e-5)
    assert doubled.log_q.exp().numpy() == pytest.approx(2 * count[doubled.rows], rel=1e-5)


def test_esans_in_batch_log_q_is_that_of_the_mixture():
    share = torch.linspace(1, 2, 12) / 18
    positives = np.array([0, 4], np.int32)
    context = replace(sample()[0], target_share=share)
    settings = esans_config(easy=40, hard=0, in_batch=True, log_q_share=1.0, virtual=False)
    sampled = EsansSampler(CLUSTERS, settings)(context)
    everything = np.arange(12, dtype=np.int32)
    log_expected = np.log(
        2 * share.numpy() + 40 * CLUSTERS.mean_easy_probability(positives, everything)
    )
    batch, easy = sampled.sets()
    for negatives in (batch, easy):
        assert negatives.log_q.numpy() == pytest.approx(
            log_expected[negatives.rows.numpy()], abs=1e-5
        )
    assert sampled.positive_log_q.numpy() == pytest.approx(log_expected[positives], abs=1e-5)


def test_esans_in_batch_frequency_matches_log_q():
    """Observed counts of in-batch and easy negatives match log q."""
    rng, share = np.random.default_rng(0), np.linspace(1, 2, 12) / 18
    settings = esans_config(easy=8, hard=0, in_batch=True, log_q_share=1.0, virtual=False)
    counts, expected = np.zeros(12), np.zeros(12)
    everything = np.arange(12, dtype=np.int32)
    for step in range(2_000):
        positives = rng.choice(12, 4, p=share).astype(np.int64)
        context = context_for([(0,)] * 4, range(4), positives.tolist(), share, step=step)
        for negatives in EsansSampler(CLUSTERS, settings)(context).sets():
            counts += np.bincount(negatives.rows, minlength=12)
        expected += 4 * share
        expected += 8 * CLUSTERS.mean_easy_probability(positives.astype(np.int32), everything)
    # easy negatives come in pairs: the variance is at most twice that of independent samples
    assert chisquare(counts / 2, expected * counts.sum() / expected.sum() / 2).pvalue > 0.001


def test_esans_with_hard_leaves_positive_uncorrected():
    _, sampled = sample(easy=40, hard=2, in_batch=True, log_q_share=1.0)
    assert sampled.positive_log_q is None


def test_esans_all_seen_row_has_finite_loss():
    context, sampled = sample(histories=(range(12), (4,)), easy=8, hard=2)
    loss = loss_of(context, sampled)
    loss.backward()
    assert torch.isfinite(loss)


def test_esans_same_step_samples_the_same():
    first, again, other = (sample(step, easy=40)[1].rows for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_build_sampler_esans_without_map_raises():
    with pytest.raises(ValueError, match="esans needs a cluster map"):
        build_sampler(esans_config())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"easy": 0, "hard": 0}, "nothing is sampled"),
        ({"alpha_min": 0.5, "alpha_max": -0.5}, "alpha_min .0.5. must be at most"),
        ({"easy": 3}, "set easy to an even number"),
    ],
)
def test_esans_config_rejects_invalid_settings(settings, message):
    with pytest.raises(Exception, match=message):
        esans_config(**settings)

"""The default variant of ESANS: estimates of the full softmax from warm items."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from index.cluster_map import ClusterMap
from index.errors import ConfigError
from tests.support.sampler_contexts import context_for, loss_of, unit
from trainer.config import validate_config
from trainer.esans.sampler import EsansSampler
from trainer.loss import sampled_softmax
from trainer.samplers.config import EsansConfig

ITEMS, COLD = 24, [5, 23]
CODES1 = np.repeat(np.arange(4), 6).astype(np.int32)
CODES2 = np.tile([0, 0, 1, 1, 2, 2], 4).astype(np.int32)
CENTROIDS = np.array([[0, 0], [1, 0], [0, 3], [2, 2]], np.float32)
CLUSTERS = ClusterMap(CODES1, CODES2, CENTROIDS, np.arange(ITEMS, dtype=np.uint64), 1.0)
COUNTS = np.random.default_rng(0).integers(1, 30, ITEMS)
COUNTS[COLD] = 0
SHARE = (COUNTS / COUNTS.sum()).astype(np.float32)
TABLE, QUERIES = unit(ITEMS).detach(), unit(3, seed=1).detach()
ROWS = torch.arange(ITEMS)
POSITIVES, HISTORIES = [0, 7, 8], [(0, 1, 9), (7,), (8, 14)]


def esans(**settings):
    defaults = {"easy": 6, "hard": 0, "in_batch_histories": 0, "max_cell_share": 1.0}
    table = {"name": "esans", **defaults, **settings}
    config = validate_config({"training": {"sampler": table}}, "a test").training.sampler
    return EsansSampler(CLUSTERS, config)


def context_of(step, positives=POSITIVES):
    return context_for(
        HISTORIES, [0, 1, 2], list(positives), SHARE, table=TABLE, queries=QUERIES, step=step
    )


def allowed_items():
    """Warm items that are neither seen nor in the positive's cell; [users, items]."""
    is_allowed = np.tile(COUNTS > 0, (3, 1))
    for user, positive in enumerate(POSITIVES):
        is_allowed[user, list(HISTORIES[user])] = False
        is_same = (CODES1[positive] == CODES1) & (CODES2[positive] == CODES2)
        is_allowed[user, is_same] = False
    return is_allowed


def estimate(negatives, context):
    """The estimate of the softmax's sum over the negatives, for each user."""
    total = torch.zeros(len(context.queries))
    for sampled in negatives.sets():
        vectors = sampled.vectors
        scores = (vectors * context.queries[:, None]).sum(-1)  # [users, n] for both shapes
        terms = torch.exp(scores - sampled.log_q + sampled.log_weight)
        total += terms.masked_fill(sampled.is_masked, 0).sum(dim=1)
    return total.numpy()


@pytest.mark.parametrize(("hard", "warmup"), [(0, 0), (20, 0), (20, 3_000)])
@pytest.mark.parametrize("virtual", [False, True])
def test_esans_estimates_the_sum_over_unmasked_items(hard, warmup, virtual):
    sampler = esans(easy=60, hard=hard, in_batch=False, virtual=virtual, hard_warmup_steps=warmup)
    contexts = (context_of(step) for step in range(300))
    estimates = np.array([estimate(sampler(context), context) for context in contexts])
    exact = (np.exp((QUERIES @ TABLE.T).numpy()) * allowed_items()).sum(axis=1)
    errors = estimates.std(axis=0) / len(estimates) ** 0.5
    assert (errors < 0.02 * exact).all()
    assert (np.abs(estimates.mean(axis=0) - exact) < 4 * errors).all()


@pytest.mark.parametrize(("limit", "settings"), [(10, {"easy": 0}), (99, {}), (99, {"hard": 2})])
def test_esans_histories_estimate_the_sum_over_unmasked_items(limit, settings):
    """Whether an item is in the examples of a batch is independent of the other items here."""
    probability = np.random.default_rng(3).uniform(0.2, 0.9, ITEMS)
    draws = np.random.default_rng(4).random((500, ITEMS)) < probability
    sampler, estimates = esans(in_batch_histories=limit, **settings), []
    for step, is_sampled in enumerate(draws):
        rows = torch.from_numpy(is_sampled.nonzero()[0])
        context = replace(
            context_of(step),
            batch_rows=rows,
            batch_vectors=TABLE[rows],
            in_batch_probability=lambda rows: probability[rows],
        )
        estimates.append(estimate(sampler(context), context))
    exact = (np.exp((QUERIES @ TABLE.T).numpy()) * allowed_items()).sum(axis=1)
    errors = np.std(estimates, axis=0) / len(estimates) ** 0.5
    assert (errors < 0.02 * exact).all()
    assert (np.abs(np.mean(estimates, axis=0) - exact) < 4 * errors).all()


def test_esans_histories_are_warm_masked_and_not_encoded_again():
    rows = torch.arange(ITEMS)
    vectors = TABLE.clone().requires_grad_()
    context = replace(context_of(0), batch_rows=rows, batch_vectors=vectors)
    sampled = esans(in_batch_histories=ITEMS, easy=0)(context)
    assert sampled.num_encoded == 0
    assert set(sampled.rows.tolist()) == set(range(ITEMS)) - set(COLD)
    assert torch.equal(~sampled.is_masked, torch.from_numpy(allowed_items())[:, sampled.rows])
    loss_of(context, sampled).backward()
    is_pushed = (vectors.grad[sampled.rows] != 0).any(dim=1)
    assert torch.equal(is_pushed, (~sampled.is_masked).any(dim=0))


@pytest.mark.parametrize(("limit", "count"), [(1, 3), (5, 5), (ITEMS, ITEMS - len(COLD))])
def test_esans_histories_are_limited_but_not_below_the_targets(limit, count):
    context = replace(
        context_of(0),
        batch_rows=ROWS,
        batch_vectors=TABLE,
        in_batch_probability=lambda rows: np.full(len(rows), 0.5),
    )
    sampled = esans(in_batch_histories=limit, easy=0)(context)
    assert len(set(sampled.rows.tolist())) == len(sampled.rows) == count
    expected = torch.full((count,), 0.5 * count / (ITEMS - len(COLD)))
    assert torch.allclose(sampled.log_q.exp(), expected)


def test_esans_histories_without_in_batch_are_rejected():
    with pytest.raises(ConfigError, match="in_batch_histories"):
        esans(in_batch_histories=8, in_batch=False)


@pytest.mark.parametrize(("rows", "is_large"), [(1, False), (3, False), (4, True)])
def test_esans_defaults_depend_on_items_per_row(monkeypatch, rows, is_large):
    monkeypatch.setattr("trainer.esans.sampler.LARGE_CATALOGUE", ITEMS / rows)
    monkeypatch.setattr("trainer.esans.sampler.EASY", 6)
    counts = {"easy": 6, "in_batch_histories": 2048} if is_large else {"easy": 0}
    sets, explicit = (
        list(sampler(replace(context_of(0), batch_rows=ROWS, batch_vectors=TABLE)).sets())
        for sampler in (
            EsansSampler(CLUSTERS, EsansConfig()),
            esans(hard=1, max_cell_share=0.0, **counts),
        )
    )
    sources = ["in batch", "easy", "hard"] if is_large else ["in batch", "hard"]
    assert [sampled.source for sampled in sets] == sources
    assert (len(sets[0].rows) > len(POSITIVES)) == is_large
    for sampled, expected in zip(sets, explicit, strict=True):
        assert torch.equal(sampled.rows, expected.rows)
        assert torch.equal(sampled.log_q, expected.log_q)


def test_esans_masks_seen_items_alone_by_default():
    context = context_of(0)
    sets = list(esans(max_cell_share=EsansConfig().max_cell_share, hard=2)(context).sets())
    assert len(sets) == 3
    for sampled in sets:
        assert torch.equal(sampled.is_masked, context.is_seen(sampled.rows))


def test_virtual_negatives_without_anchors_are_rejected():
    with pytest.raises(ConfigError, match=r"easy and hard are 0.*set one of them"):
        esans(easy=0, virtual=True)
    with pytest.raises(ConfigError, match=r"easy and hard are 0 in small catalogues"):
        esans(easy=-1, virtual=True)


def test_an_odd_number_of_easy_negatives_is_rejected_if_they_are_paired():
    with pytest.raises(ConfigError, match=r"easy is 7 and virtual is true; set easy to an even"):
        esans(easy=7, virtual=True)
    assert len(list(esans(easy=7)(context_of(0)).sets())[1].rows) == 7


def test_default_easy_negatives_alone_are_rejected_because_there_may_be_none():
    with pytest.raises(ConfigError, match=r"easy is -1.*in_batch is false.*set one of them"):
        esans(easy=-1, in_batch=False)


def test_esans_shared_proposal_is_the_same_at_the_positive():
    context = context_of(1)
    sampled = esans()(context)
    sampler = esans()
    positives = np.array(POSITIVES, np.int32)
    proposal = sampler.proposal_of(context)
    expected = 3 * SHARE[positives] + 6 * proposal.mean_easy_probability(positives, positives)
    assert sampled.positive_log_q.exp().numpy() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(sampled.log_q, sampled.positive_log_q)  # the batch comes first


@pytest.mark.parametrize("in_batch", [True, False])
def test_esans_hard_draws_leave_positive_uncorrected(in_batch):
    assert esans(hard=1, in_batch=in_batch)(context_of(0)).positive_log_q is None


def test_esans_never_samples_cold_items():
    sampler = esans(hard=2, in_batch=False, exponent=0)
    rows = [
        negatives.rows.flatten()
        for step in range(100)
        for negatives in sampler(context_of(step)).sets()
    ]
    assert set(torch.cat(rows).tolist()) == set(range(ITEMS)) - set(COLD)


def test_esans_virtual_negatives_have_their_own_loss_term():
    context = context_of(0)
    with_virtual = esans(hard=1, virtual=True, virtual_weight=0.3)(context)
    easy_virtual, hard_virtual = with_virtual.own_term.sets()
    assert (easy_virtual.vectors.shape[0], hard_virtual.vectors.shape[:2]) == (6, (3, 1))
    real = replace(with_virtual, own_term=None)
    expected = loss_of(context, real) + 0.3 * loss_of(context, with_virtual.own_term)
    assert loss_of(context, with_virtual).item() == pytest.approx(expected.item(), rel=1e-6)


def test_esans_virtual_negatives_do_not_push_positives():
    """Their loss term moves users, and draws positives towards their users only."""
    positives = unit(3, seed=2).detach().requires_grad_()
    queries = QUERIES.clone().requires_grad_()
    context = replace(context_of(0), positives=positives, queries=queries)
    own = esans(hard=2, virtual=True)(context).own_term
    assert not any(negatives.vectors.requires_grad for negatives in own.sets())
    loss = sampled_softmax(queries, positives, own, 0.1, 1.0)
    pull, push = torch.autograd.grad(loss, [positives, queries])
    assert (push != 0).any()
    assert ((pull * queries).sum(dim=1) < 0).all()  # descent increases the positive's score


def test_esans_tables_follow_map_and_target_share():
    sampler, context = esans(), context_of(0)
    built = sampler.proposal_of(context)
    again = replace(context_of(1), target_share=context.target_share)
    assert sampler.proposal_of(again) is built
    assert sampler.proposal_of(replace(context, target_share=torch.ones(ITEMS))) is not built


def test_esans_paper_variant_sets_its_defaults():
    paper = esans(variant="paper", hard=3).config
    assert (paper.hard, paper.in_batch, paper.log_q_share, paper.virtual) == (3, False, 0, True)
    assert paper.model_validate(paper.model_dump()) == paper

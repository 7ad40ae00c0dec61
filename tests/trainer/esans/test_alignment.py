import numpy as np
import pytest
import torch

from tests.support.planted_map import QUICK, grouped_rows, groups_of
from trainer.esans.alignment import align_modalities, contrastive_loss, prepare_modality

GROUPS = groups_of(200, 8)
BRIEF = QUICK.model_copy(update={"alignment_epochs": 1})


def two_modalities(**options):
    return {
        "textual": grouped_rows(GROUPS, 12, seed=1, **options),
        "visual": grouped_rows(GROUPS, 20, seed=2, **options),
    }


def nearest_in_group_share(queries, others):
    """Share of items whose nearest other item in the other modality is of their group."""
    similarity = queries @ others.T
    np.fill_diagonal(similarity, -2)
    return (GROUPS[similarity.argmax(axis=1)] == GROUPS).mean()


def test_align_moves_image_near_text_of_its_group():
    modalities = two_modalities()
    before = align_modalities(modalities, QUICK.model_copy(update={"alignment_epochs": 0}), seed=0)
    after = align_modalities(modalities, QUICK, seed=0)
    shares = [
        nearest_in_group_share(aligned.embeddings["visual"], aligned.embeddings["textual"])
        for aligned in (before, after)
    ]
    assert shares[0] < 0.5
    assert shares[1] > 0.95


def test_align_returns_unit_rows_of_embedding_dim():
    aligned = align_modalities(two_modalities(), BRIEF, seed=0)
    for block in aligned.embeddings.values():
        assert (block.dtype, block.shape) == (np.float32, (200, 16))
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, atol=1e-5)


def test_align_ignores_a_common_shift():
    plain, shifted = (align_modalities(two_modalities(shift=far), BRIEF, seed=0) for far in (0, 50))
    for name, block in plain.embeddings.items():
        np.testing.assert_allclose(block, shifted.embeddings[name], atol=0.05)


def test_align_same_seed_is_deterministic():
    first, repeated, other = (align_modalities(two_modalities(), BRIEF, seed) for seed in (3, 3, 4))
    assert (first.embeddings["visual"] == repeated.embeddings["visual"]).all()
    assert (first.embeddings["visual"] != other.embeddings["visual"]).any()


def test_align_keeps_global_rng_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    align_modalities(two_modalities(), BRIEF, seed=0)
    assert torch.rand(1) == expected


def test_align_missing_row_is_zero_in_mean_and_residual():
    modalities = two_modalities()
    modalities["visual"][7] = np.nan
    modalities["visual"][8] = modalities["textual"][8] = np.nan
    aligned = align_modalities(modalities, BRIEF, seed=0)
    assert aligned.presence[6:9].tolist() == [[True, True], [True, False], [False, False]]
    assert not aligned.embeddings["visual"][7].any()
    assert (aligned.means(np.array([7])) == aligned.embeddings["textual"][[7]]).all()
    assert not aligned.means(np.array([8])).any()
    residuals = aligned.residuals(np.array([7]), np.ones((1, 16), dtype=np.float32))
    assert (residuals[0, :16] == aligned.embeddings["textual"][7] - 1).all()
    assert (residuals[0, 16:] == 0).all()


def test_align_single_modality_is_centred_and_scaled():
    aligned = align_modalities(
        {"visual": np.array([[3, 0], [1, 0], [2, 9]], np.float32)}, BRIEF, seed=0
    )
    expected = np.array([[1, -3], [-1, -3], [0, 6]]) / np.sqrt([[10], [10], [36]])
    np.testing.assert_allclose(aligned.embeddings["visual"], expected, atol=1e-6)
    assert aligned.loss is None


def test_align_skips_modality_without_items():
    modalities = two_modalities() | {"behavioural": np.full((200, 5), np.nan, np.float32)}
    assert list(align_modalities(modalities, BRIEF, seed=0).embeddings) == ["textual", "visual"]


def test_align_disjoint_modalities_has_no_loss():
    modalities = two_modalities()
    modalities["visual"][::2] = np.nan
    modalities["textual"][1::2] = np.nan
    assert align_modalities(modalities, BRIEF, seed=0).loss is None


def test_align_without_modalities_raises():
    with pytest.raises(ValueError, match="no modality"):
        align_modalities({}, BRIEF, seed=0)


def test_align_keeps_equal_rows_bitwise_equal():
    modalities = {name: rows[GROUPS] for name, rows in two_modalities().items()}
    aligned = align_modalities(modalities, BRIEF, seed=0)
    for block in aligned.embeddings.values():
        assert len(np.unique(block, axis=0)) == 8


def test_align_accepts_all_rows_equal():
    same = {name: np.ones((50, 6), dtype=np.float32) for name in ("textual", "visual")}
    for block in align_modalities(same, BRIEF, seed=0).embeddings.values():
        assert np.isfinite(block).all()
        assert len(np.unique(block, axis=0)) == 1


def test_prepare_modality_groups_rows_across_signed_zero():
    values = np.array([[0.0, 1], [-0.0, 1], [2, 1], [np.nan, np.nan]], dtype=np.float32)
    groups = prepare_modality(values).duplicate_groups
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == -1


def test_contrastive_loss_ignores_duplicates():
    rows = torch.nn.functional.normalize(torch.eye(3)[[0, 0, 1]] + 0.1, dim=-1)
    duplicates = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    no_duplicates = torch.eye(3, dtype=torch.bool)
    single = contrastive_loss(rows[1:], rows[1:], no_duplicates[1:, 1:], 0.1)
    assert (
        contrastive_loss(rows, rows, no_duplicates, 0.1) > 0.4
    )  # two of three are indistinguishable
    assert contrastive_loss(rows, rows, duplicates, 0.1) < 1.5 * single


def test_contrastive_loss_is_mean_of_both_directions():
    residuals, right = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    forward = (np.log(2) + np.log(2)) / 2  # both texts are equally near to each image
    backward = (np.log(1 + np.exp(-1)) + np.log(1 + np.exp(1))) / 2
    loss = contrastive_loss(residuals, right, torch.eye(2, dtype=torch.bool), 1.0)
    assert float(loss) == pytest.approx((forward + backward) / 2)

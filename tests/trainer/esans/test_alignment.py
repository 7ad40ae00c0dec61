import numpy as np
import pytest
import torch

from tests.support.planted_map import QUICK, grouped_rows, groups_of
from trainer.esans.alignment import align_modalities, contrastive_loss, prepare_modality

GROUPS = groups_of(200, 8)


def two_modalities(**options):
    return {
        "textual": grouped_rows(GROUPS, 12, seed=1, **options),
        "visual": grouped_rows(GROUPS, 20, seed=2, **options),
    }


def nearest_is_of_the_group(queries, answers):
    """How often the nearest other item, seen in another modality, is of the same group."""
    likeness = queries @ answers.T
    np.fill_diagonal(likeness, -2)
    return (GROUPS[likeness.argmax(axis=1)] == GROUPS).mean()


def test_the_picture_of_an_item_comes_near_the_text_of_its_group_and_did_not_before():
    modalities = two_modalities()
    before = align_modalities(modalities, QUICK.model_copy(update={"alignment_epochs": 0}), seed=0)
    after = align_modalities(modalities, QUICK, seed=0)
    shares = [
        nearest_is_of_the_group(one.embeddings["visual"], one.embeddings["textual"])
        for one in (before, after)
    ]
    assert shares[0] < 0.5
    assert shares[1] > 0.95


def test_aligned_rows_are_unit_rows_of_the_width_asked_for():
    aligned = align_modalities(two_modalities(), QUICK, seed=0)
    for block in aligned.embeddings.values():
        assert (block.dtype, block.shape) == (np.float32, (200, 16))
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, atol=1e-5)


def test_what_all_rows_share_does_not_count():
    plain, shifted = (align_modalities(two_modalities(shift=far), QUICK, seed=0) for far in (0, 50))
    for name, block in plain.embeddings.items():
        np.testing.assert_allclose(block, shifted.embeddings[name], atol=0.05)


def test_the_same_seed_aligns_the_same_and_another_differently():
    one, again, other = (align_modalities(two_modalities(), QUICK, seed) for seed in (3, 3, 4))
    assert (one.embeddings["visual"] == again.embeddings["visual"]).all()
    assert (one.embeddings["visual"] != other.embeddings["visual"]).any()


def test_aligning_leaves_the_global_generators_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    align_modalities(two_modalities(), QUICK, seed=0)
    assert torch.rand(1) == expected


def test_a_missing_row_is_0_and_left_out_of_the_mean_and_of_what_remains():
    modalities = two_modalities()
    modalities["visual"][7] = np.nan
    modalities["visual"][8] = modalities["textual"][8] = np.nan
    aligned = align_modalities(modalities, QUICK, seed=0)
    assert aligned.presence[6:9].tolist() == [[True, True], [True, False], [False, False]]
    assert not aligned.embeddings["visual"][7].any()
    assert (aligned.means(np.array([7])) == aligned.embeddings["textual"][[7]]).all()
    assert not aligned.means(np.array([8])).any()
    left = aligned.residuals(np.array([7]), np.ones((1, 16), dtype=np.float32))
    assert (left[0, :16] == aligned.embeddings["textual"][7] - 1).all()
    assert (left[0, 16:] == 0).all()


def test_one_modality_alone_is_only_centred_and_scaled():
    aligned = align_modalities(
        {"visual": np.array([[3, 0], [1, 0], [2, 9]], np.float32)}, QUICK, seed=0
    )
    expected = np.array([[1, -3], [-1, -3], [0, 6]]) / np.sqrt([[10], [10], [36]])
    np.testing.assert_allclose(aligned.embeddings["visual"], expected, atol=1e-6)
    assert aligned.loss is None


def test_a_modality_that_no_item_has_is_passed_over():
    modalities = two_modalities() | {"behavioural": np.full((200, 5), np.nan, np.float32)}
    assert list(align_modalities(modalities, QUICK, seed=0).embeddings) == ["textual", "visual"]


def test_modalities_that_no_item_has_together_are_left_unaligned():
    modalities = two_modalities()
    modalities["visual"][::2] = np.nan
    modalities["textual"][1::2] = np.nan
    assert align_modalities(modalities, QUICK, seed=0).loss is None


def test_nothing_to_align_is_a_mistake():
    with pytest.raises(ValueError, match="no modality"):
        align_modalities({}, QUICK, seed=0)


def test_equal_raw_rows_are_equal_to_the_last_bit_in_the_common_space():
    modalities = {name: rows[GROUPS] for name, rows in two_modalities().items()}
    aligned = align_modalities(modalities, QUICK, seed=0)
    for block in aligned.embeddings.values():
        assert len(np.unique(block, axis=0)) == 8


def test_all_rows_equal_can_be_aligned():
    same = {name: np.ones((50, 6), dtype=np.float32) for name in ("textual", "visual")}
    for block in align_modalities(same, QUICK, seed=0).embeddings.values():
        assert np.isfinite(block).all()
        assert len(np.unique(block, axis=0)) == 1


def test_equal_looks_are_told_whatever_the_sign_of_a_zero():
    values = np.array([[0.0, 1], [-0.0, 1], [2, 1], [np.nan, np.nan]], dtype=np.float32)
    looks = prepare_modality(values).duplicate_groups
    assert looks[0] == looks[1] != looks[2]
    assert looks[3] == -1


def test_twins_are_not_each_others_negatives():
    rows = torch.nn.functional.normalize(torch.eye(3)[[0, 0, 1]] + 0.1, dim=-1)
    twins = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    strangers = torch.eye(3, dtype=torch.bool)
    alone = contrastive_loss(rows[1:], rows[1:], strangers[1:, 1:], 0.1)
    assert contrastive_loss(rows, rows, strangers, 0.1) > 0.4  # two of three cannot be told apart
    assert contrastive_loss(rows, rows, twins, 0.1) < 1.5 * alone


def test_the_loss_is_the_mean_of_both_directions():
    left, right = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    there = (np.log(2) + np.log(2)) / 2  # both texts look alike from either picture
    back = (np.log(1 + np.exp(-1)) + np.log(1 + np.exp(1))) / 2
    loss = contrastive_loss(left, right, torch.eye(2, dtype=torch.bool), 1.0)
    assert float(loss) == pytest.approx((there + back) / 2)

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.large_shop import OPENING, PART_ROWS, SECONDS, TRAIN_SHARE, make_shop
from trainer.data.dataset import load_dataset
from trainer.data.interactions import TRAIN, training_counts

ITEMS, INTERACTIONS, SEED = 20_000, 100_000, 1


class ReadShop:
    """A generated shop, read back without the generator."""

    def __init__(self, folder):
        self.folder = folder
        self.facts = json.loads((folder / "shop.json").read_text())
        self.truth = dict(np.load(folder / "truth.npz"))
        table = pq.read_table(folder / "interactions.parquet")
        self.users = numbers(table["user_id"])
        self.items = numbers(table["item_id"])
        self.seconds = table["timestamp"].to_numpy()
        self.train_rows = int(TRAIN_SHARE * len(self.items))


def numbers(column):
    """Numbers of ids such as "u17" and "i17"."""
    return np.array([int(text[1:]) for text in column.to_pylist()])


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    make_shop(folder, ITEMS, INTERACTIONS, SEED)
    return ReadShop(folder)


def total_variation(first, second):
    """Half the sum of differences of two distributions, given as samples of clusters."""
    count = max(first.max(), second.max()) + 1
    shares = [np.bincount(part, minlength=count) / len(part) for part in (first, second)]
    return np.abs(shares[0] - shares[1]).sum() / 2


def test_make_shop_is_a_dataset_that_the_trainer_reads(shop):
    dataset = load_dataset(shop.folder, "last-fifth")
    assert dataset.item_ids[17] == "i17"
    assert {name: values.shape for name, values in dataset.modalities.items()} == {
        "image": (ITEMS, 64),
        "text": (ITEMS, 64),
    }
    assert len(dataset.interactions.parts) == shop.facts["interactions"]
    is_cold = training_counts(dataset.interactions, ITEMS) == 0
    assert (dataset.interactions.parts == TRAIN).mean() == pytest.approx(TRAIN_SHARE, abs=0.001)
    assert is_cold.sum() == shop.facts["cold_items"] == (shop.truth["bucket"] == 0).sum()
    assert not any("unused" in note or "repeated" in note for note in dataset.notes)


def test_make_shop_facts_are_those_of_its_files(shop):
    counts = np.bincount(shop.items, minlength=ITEMS)
    assert shop.facts["interactions"] == len(shop.items)
    assert 0.95 * INTERACTIONS < len(shop.items) <= INTERACTIONS
    assert len(np.unique(shop.users)) <= shop.facts["users"] == INTERACTIONS // 20
    assert shop.facts["share_of_items_with_event"] == (counts > 0).mean() >= 0.8
    assert shop.facts["items_without_event"] == (counts == 0).sum()


def test_make_shop_popularity_has_a_heavy_tail(shop):
    counts = np.sort(np.bincount(shop.items, minlength=ITEMS))
    differences = np.abs(np.subtract.outer(counts[::10], counts[::10])).mean()
    assert shop.facts["gini"] == pytest.approx(differences / (2 * counts.mean()), abs=0.02)
    assert 0.5 < shop.facts["gini"] < 0.8
    assert shop.facts["share_of_events_of_top_percent"] > 0.1
    assert np.median(counts) < counts.mean() < counts[-1] / 20


@pytest.mark.parametrize(("modality", "share"), [("image", 0.8), ("text", 0.6)])
def test_nearest_item_by_modality_is_of_the_same_cell(shop, modality, share):
    values = np.load(shop.folder / f"features_{modality}.npy").astype(np.float32)
    rows = np.flatnonzero(~np.isnan(values).any(axis=1))
    assert 0.02 < 1 - len(rows) / ITEMS < 0.15
    vectors = values[rows] - values[rows].mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors[:300] @ vectors.T
    group, cell = shop.truth["group"][rows], shop.truth["cell"][rows]
    similarity[group[:300, None] == group] = -1
    assert (cell[similarity.argmax(axis=1)] == cell[:300]).mean() > share


def test_duplicates_are_nearer_than_other_items_of_the_cell(shop):
    values = np.load(shop.folder / "features_image.npy").astype(np.float32)
    order = np.argsort(shop.truth["group"], kind="stable")
    group, cell = shop.truth["group"][order], shop.truth["cell"][order]
    distances = np.linalg.norm(np.diff(values[order], axis=0), axis=1)
    is_copy = np.diff(group) == 0
    is_other = ~is_copy & (np.diff(cell) == 0)
    assert np.nanmedian(distances[is_copy]) < 0.1 * np.nanmedian(distances[is_other])
    sizes = np.bincount(group)
    assert (shop.truth["group_size"] == sizes[shop.truth["group"]]).all()
    assert 0.1 < shop.facts["share_of_items_with_duplicates"] < 0.3


def test_duplicates_are_taken_by_the_same_users(shop):
    cell, group = shop.truth["cell"][shop.items], shop.truth["group"][shop.items]
    order = np.lexsort((group, cell, shop.users))
    users, cell, group = shop.users[order], cell[order], group[order]
    is_same_cell = (np.diff(users) == 0) & (np.diff(cell) == 0)
    taken_both = (is_same_cell & (np.diff(group) == 0)).sum()
    random_group = np.random.default_rng(0).permutation(shop.truth["group"])[shop.items[order]]
    by_chance = ((np.diff(users) == 0) & (np.diff(random_group) == 0)).sum()
    assert taken_both > 10 * max(by_chance, 10)


def test_cluster_popularity_and_tastes_change_over_time(shop):
    cluster = shop.truth["cluster"][shop.items]
    early, late = cluster[: shop.train_rows], cluster[shop.train_rows :]
    is_even = np.arange(len(cluster)) % 5 > 0
    by_chance = total_variation(cluster[is_even], cluster[~is_even])
    assert total_variation(early, late) > 5 * by_chance
    order = np.argsort(shop.users, kind="stable")
    ends = np.flatnonzero(np.diff(shop.users[order]))
    starts = np.append(0, ends[:-1] + 1)
    first, last = shop.truth["cell"][shop.items[order]][[starts, ends]]
    tastes = shop.truth["user_tastes"][shop.users[order][ends]]
    assert (first == tastes[:, 0]).mean() > 2 * (last == tastes[:, 0]).mean()


def test_consecutive_items_follow_cells_in_their_order(shop):
    order = np.argsort(shop.users, kind="stable")
    is_same_user = np.diff(shop.users[order]) == 0
    steps = np.diff(shop.truth["cell"][shop.items[order]])[is_same_user]
    assert (steps == 0).mean() > 0.15
    assert (steps == 1).mean() > 1.5 * (steps == -1).mean()


def test_items_have_no_event_before_they_appear(shop):
    elapsed = (shop.seconds - OPENING) / SECONDS
    births = shop.truth["birth"][shop.items]
    assert (births <= elapsed + 1e-6).all()
    late = np.flatnonzero(np.isfinite(shop.truth["birth"]) & (shop.truth["birth"] >= 0.9))
    assert 0.03 * ITEMS < len(late) < 0.07 * ITEMS
    assert not np.isin(late, shop.items[: shop.train_rows]).any()
    assert np.isin(late, shop.items[shop.train_rows :]).mean() > 0.1


def test_make_shop_same_seed_has_same_digests(tmp_path):
    first = make_shop(tmp_path / "a", 2_000, 10_000, seed=3)
    again = make_shop(tmp_path / "b", 2_000, 10_000, seed=3)
    other = make_shop(tmp_path / "c", 2_000, 10_000, seed=4)
    assert first == again
    assert len(first["sha256"]) == 5
    assert not set(first["sha256"].values()) & set(other["sha256"].values())


def test_make_shop_parts_hold_rows_of_the_single_file(tmp_path):
    make_shop(tmp_path / "one", 2_000, 10_000, seed=3)
    parted = make_shop(tmp_path / "parts", 2_000, 10_000, seed=3, part_rows=3_000)
    names = [name for name in parted["sha256"] if "/" in name]
    assert names == [f"interactions.parquet/part-000{number}.parquet" for number in range(4)]
    whole = pq.read_table(tmp_path / "one" / "interactions.parquet")
    assert pq.read_table(tmp_path / "parts" / "interactions.parquet").equals(whole)


def test_make_shop_existing_files_are_not_overwritten(tmp_path):
    (tmp_path / "mine.csv").touch()
    with pytest.raises(FileExistsError, match=r"mine|holds files"):
        make_shop(tmp_path, 2_000, 10_000, seed=3)


def test_command_single_file_writes_no_parts(tmp_path):
    out = tmp_path / "shop"
    command = [sys.executable, "-m", "benchmarks.large_shop", "--items", "1000", "--out", str(out)]
    command += ["--interactions", "5000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads((out / "shop.json").read_text())
    assert (out / "interactions.parquet").is_file()
    assert PART_ROWS == 1_000_000

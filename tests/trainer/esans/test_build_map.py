from datetime import UTC, datetime

import numpy as np
import pytest

from index.cluster_map_io import open_cluster_map
from index.errors import ConfigError
from index.ids import hash_ids
from tests.support.planted_map import QUICK, is_divided
from tests.support.tiny_dataset import write_tiny_world
from trainer.__main__ import main
from trainer.data.dataset import load_dataset
from trainer.esans.build_map import build_cluster_map

NOW = datetime(2026, 1, 31, tzinfo=UTC)
PARITY = np.arange(40) % 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_world(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(folder):
    return load_dataset(folder)


def build_map(dataset, seed=0, **changes):
    return build_cluster_map(dataset, QUICK.model_copy(update=changes), seed, NOW)


@pytest.mark.parametrize("modalities", [(), ("visual", "textual"), ("behavioural",)])
def test_build_cluster_map_separates_planted_groups(dataset, modalities):
    clusters = build_map(dataset, modalities=modalities, level_1_codes=2)
    assert is_divided(clusters.codes1, PARITY)


def test_build_cluster_map_assigns_item_without_image(dataset):
    clusters = build_map(dataset, modalities=("visual", "textual"), level_1_codes=2)
    assert np.isnan(dataset.modalities["visual"][7]).all()
    assert clusters.codes1[7] == clusters.codes1[9]


def test_build_cluster_map_records_provenance(dataset):
    clusters = build_map(dataset, seed=5)
    assert (clusters.id_hashes == hash_ids(item_id.encode() for item_id in dataset.item_ids)).all()
    assert clusters.made["at"] == "2026-01-31T00:00:00+00:00"
    assert clusters.made["seed"] == 5
    assert clusters.made["items_with"] == {"textual": 39, "visual": 39, "behavioural": 40}
    assert clusters.made["items_with_nothing"] == 0
    assert clusters.made["dataset"] == dataset.fingerprint


def test_build_cluster_map_same_seed_is_deterministic(dataset):
    first, repeated, other = (build_map(dataset, seed).version for seed in (1, 1, 2))
    assert first == repeated != other


def test_behaviour_is_learned_from_training_only(dataset):
    """With all interactions, an item that is held out for every user would have a row."""
    interactions = dataset.interactions
    trained = np.unique(interactions.item_rows[interactions.parts == 0])
    clusters = build_map(dataset, modalities=("behavioural",))
    assert clusters.made["items_with"]["behavioural"] <= len(trained)


def test_behaviour_file_replaces_learned_rows(dataset, tmp_path):
    path = tmp_path / "behaviour.npy"
    np.save(path, np.eye(2)[np.arange(40) // 20])
    clusters = build_map(dataset, modalities=("behavioural",), behaviour_file=str(path))
    assert is_divided(clusters.codes1, np.arange(40) // 20)
    assert len(clusters.centroids) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((39, 2)), r"has shape \(39, 2\); expected floats of shape \(40, dim\)"),
        (np.ones((40, 2), dtype=int), "no matrix of floats"),
        (np.where(np.eye(40, 2) > 0, np.nan, 1.0), "row 0 is partly NaN"),
    ],
)
def test_behaviour_file_with_invalid_values_is_rejected(dataset, tmp_path, values, message):
    path = tmp_path / "behaviour.npy"
    np.save(path, values)
    with pytest.raises(ConfigError, match=message):
        build_map(dataset, behaviour_file=str(path))


def test_behaviour_file_missing_is_rejected(dataset, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        build_map(dataset, behaviour_file=str(tmp_path / "nowhere.npy"))


def test_unknown_modality_is_rejected(dataset):
    with pytest.raises(ConfigError, match=r"\['acoustic'\] not among .*textual.*visual"):
        build_map(dataset, modalities=("acoustic", "visual"))


def test_clusters_command_describes_saved_map(folder, tmp_path, capsys):
    words = ["clusters", "--data", folder, "--out", tmp_path / "map", "--category", "parity"]
    assert main([str(word) for word in words]) == 0
    message = capsys.readouterr().out
    clusters = open_cluster_map(tmp_path / "map")
    assert f"cluster map {clusters.version}: 40 items" in message
    assert "agreement with parity (2 values, 40 items)" in message
    assert "thing" in message


def test_clusters_command_rejects_unknown_column(folder, capsys):
    assert main(["clusters", "--data", str(folder), "--category", "colour"]) == 1
    assert "no column 'colour'; they have item_id, title, parity" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ml1m_posters", "amazon_instruments"])
def test_held_out_item_shares_cluster_with_history_often(test_data, name):
    from trainer.config import ClustersConfig
    from trainer.esans.stats import measure_code_sharing

    data = load_dataset(test_data(name))
    clusters = build_cluster_map(data, ClustersConfig(), 0, NOW)
    measured = measure_code_sharing(clusters.codes1, data, np.random.default_rng(0))
    assert measured["history and held out"] > 1.5 * measured["random interactions"]

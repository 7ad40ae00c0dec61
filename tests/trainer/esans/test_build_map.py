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
def world(folder):
    return load_dataset(folder)


def made_of(world, seed=0, **changes):
    return build_cluster_map(world, QUICK.model_copy(update=changes), seed, NOW)


@pytest.mark.parametrize("modalities", [(), ("visual", "textual"), ("behavioural",)])
def test_even_and_odd_items_land_in_different_clusters(world, modalities):
    found = made_of(world, modalities=modalities, level_1_codes=2)
    assert is_divided(found.codes1, PARITY)


def test_an_item_without_a_picture_lands_with_its_kind(world):
    found = made_of(world, modalities=("visual", "textual"), level_1_codes=2)
    assert np.isnan(world.modalities["visual"][7]).all()
    assert found.codes1[7] == found.codes1[9]


def test_a_map_says_how_it_was_made_and_of_which_items(world):
    found = made_of(world, seed=5)
    assert (found.id_hashes == hash_ids(one.encode() for one in world.item_ids)).all()
    assert found.made["at"] == "2026-01-31T00:00:00+00:00"
    assert found.made["seed"] == 5
    assert found.made["items_with"] == {"textual": 39, "visual": 39, "behavioural": 40}
    assert found.made["items_with_nothing"] == 0
    assert found.made["dataset"] == world.fingerprint


def test_the_same_seed_makes_the_same_map_and_another_another(world):
    one, again, other = (made_of(world, seed).version for seed in (1, 1, 2))
    assert one == again != other


def test_behaviour_is_learned_from_training_alone(world):
    """Were it all interactions, an item held out from everybody would have a row."""
    interactions = world.interactions
    trained = np.unique(interactions.item_rows[interactions.parts == 0])
    found = made_of(world, modalities=("behavioural",))
    assert found.made["items_with"]["behavioural"] <= len(trained)


def test_a_behaviour_file_is_taken_in_place_of_what_would_be_learned(world, tmp_path):
    path = tmp_path / "behaviour.npy"
    np.save(path, np.eye(2)[np.arange(40) // 20])
    found = made_of(world, modalities=("behavioural",), behaviour_file=str(path))
    assert is_divided(found.codes1, np.arange(40) // 20)
    assert len(found.centroids) == 2


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.ones((39, 2)), r"holds \(39, 2\); expected floats of shape \(40, width\)"),
        (np.ones((40, 2), dtype=int), "no matrix of floats"),
        (np.where(np.eye(40, 2) > 0, np.nan, 1.0), "row 0 is partly NaN"),
    ],
)
def test_an_unfit_behaviour_file_is_refused(world, tmp_path, values, told):
    path = tmp_path / "behaviour.npy"
    np.save(path, values)
    with pytest.raises(ConfigError, match=told):
        made_of(world, behaviour_file=str(path))


def test_an_absent_behaviour_file_is_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        made_of(world, behaviour_file=str(tmp_path / "nowhere.npy"))


def test_a_modality_that_is_not_there_is_refused(world):
    with pytest.raises(ConfigError, match=r"\['acoustic'\] not among .*textual.*visual"):
        made_of(world, modalities=("acoustic", "visual"))


def test_the_command_describes_the_map_that_it_saves(folder, tmp_path, capsys):
    words = ["clusters", "--data", folder, "--out", tmp_path / "map", "--category", "parity"]
    assert main([str(word) for word in words]) == 0
    told = capsys.readouterr().out
    found = open_cluster_map(tmp_path / "map")
    assert f"cluster map {found.version}: 40 items" in told
    assert "agreement with parity (2 values, 40 items)" in told
    assert "thing" in told


def test_the_command_refuses_a_column_that_is_not_there(folder, capsys):
    assert main(["clusters", "--data", str(folder), "--category", "colour"]) == 1
    assert "no column 'colour'; they have item_id, title, parity" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ml1m_posters", "amazon_instruments"])
def test_what_a_user_takes_next_shares_a_cluster_with_the_past_above_chance(test_data, name):
    from trainer.config import ClustersConfig
    from trainer.esans.stats import measure_code_sharing

    data = load_dataset(test_data(name))
    found = build_cluster_map(data, ClustersConfig(), 0, NOW)
    measured = measure_code_sharing(found.codes1, data, np.random.default_rng(0))
    assert measured["history and held out"] > 1.5 * measured["random interactions"]

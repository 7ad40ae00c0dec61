"""Training on real datasets through the command line, with small towers."""

import pytest

from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry
from tests.support.training_runs import run

pytestmark = pytest.mark.e2e

SMALL = """
towers = {embedding_dim = 32, history_length = 20}
clusters = {alignment_epochs = 1}
training = {epochs = 1, device = "cpu"}
evaluation = {ease_items_limit = 0}
"""
slow = pytest.mark.slow
SETS = [
    "ml100k_posters",
    pytest.param("amazon_instruments", marks=slow),
    pytest.param("ml1m_posters", marks=slow),
]


@pytest.mark.parametrize("name", SETS)
def test_single_epoch_on_real_dataset_beats_popularity(test_data, tmp_path, name):
    config = tmp_path / "run.toml"
    config.write_text(SMALL)
    bundles = tmp_path / "bundles"
    assert run(test_data(name), bundles, config) == 0
    metrics = read_manifest(BundleRegistry(bundles).current()).metrics["test"]
    assert metrics["model"]["recall@50"] > metrics["popularity"]["recall@50"]

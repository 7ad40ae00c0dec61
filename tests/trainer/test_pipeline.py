"""End-to-end run on a planted world, and the bundle that it publishes."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Query
from index.search.retriever import Retriever
from tests.support.synthetic_bundle import retrieve_single
from tests.support.tiny_dataset import write_tiny_world
from tests.support.training_runs import run, write_config
from trainer.config import RunConfig, load_config
from trainer.data.dataset import load_dataset
from trainer.evaluate import rank_by_retriever
from trainer.metrics import build_evaluation_set

CLOSE = 1e-5


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The planted world with two more items without interactions; new-blank has no content."""
    folder = tmp_path_factory.mktemp("shop")
    write_tiny_world(folder, users=120, items=160)
    items = pq.read_table(folder / "items.parquet")
    new = pa.table({"item_id": ["new-even", "new-blank"], "title": ["", ""], "parity": ["", ""]})
    pq.write_table(pa.concat_tables([items, new]), folder / "items.parquet")
    for path in folder.glob("features_*.npy"):
        values = np.load(path)
        even = values[0:2] * np.array([[1.0], [np.nan]], dtype=np.float32)
        np.save(path, np.concatenate([values, even]))
    return folder


@pytest.fixture(scope="module")
def bundles(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder / "run.toml", {"bundle": {"name": "planted"}})
    assert run(shop, folder / "bundles", config) == 0
    return folder / "bundles"


@pytest.fixture(scope="module")
def retriever(bundles):
    return Retriever(open_bundle(BundleRegistry(bundles).current()))


@pytest.fixture(scope="module")
def data(shop):
    return load_dataset(shop)


def test_online_results_equal_offline_rankings(retriever, data):
    evaluated = build_evaluation_set(data, RunConfig())
    vectors = retriever.bundle.vectors
    assert len(evaluated.cases.user_rows) == 120
    for case, offline in enumerate(rank_by_retriever(retriever, evaluated)):
        history = evaluated.cases.histories.get(case)
        query = Query(50, history=[data.item_ids[row] for row in history])
        result = retrieve_single(retriever, query)
        assert result.fallback is None
        assert len(result.item_ids) == 50
        online = retriever.bundle.items.rows_of(result.item_ids)
        for row, expected in zip(online, offline, strict=False):
            difference = (vectors[row] - vectors[expected]) @ result.vector
            assert row == expected or abs(difference) < CLOSE


def test_even_users_get_even_candidates(retriever, data):
    shares = []
    for user in range(0, 120, 2):
        item_ids = retrieve_single(retriever, Query(20, user_id=f"user-{user}")).item_ids
        warm = [item_id for item_id in item_ids if item_id.startswith("item-")]
        shares.append(np.mean([int(item_id[5:]) % 2 == 0 for item_id in warm]))
    assert np.mean(shares) > 0.95


def test_new_user_with_single_click_gets_similar_items(retriever):
    item_ids = retrieve_single(retriever, Query(20, history=["item-1"])).item_ids
    is_odd = [name.startswith("item-") and int(name[5:]) % 2 == 1 for name in item_ids]
    assert np.mean(is_odd) > 0.8


def test_stored_histories_are_complete_and_excluded(retriever, data):
    seen = data.interactions.item_rows[data.interactions.user_rows == 4]
    assert retriever.bundle.histories.get("user-4").tolist() == seen.tolist()
    item_ids = retrieve_single(retriever, Query(162, user_id="user-4")).item_ids
    assert set(item_ids) == set(data.item_ids) - {data.item_ids[row] for row in seen}


def test_item_encoder_matches_published_cold_vectors(retriever, data):
    bundle = retriever.bundle
    cold = np.flatnonzero(bundle.counts == 0)
    assert {data.item_ids[row] for row in cold} >= {"new-even", "new-blank"}
    features = {name: rows[cold] for name, rows in data.modalities.items()}
    vectors = bundle.item_encoder.encode(features, len(cold))
    np.testing.assert_allclose(vectors, bundle.vectors[cold], rtol=0, atol=CLOSE)


def test_warm_item_vectors_differ_from_content_vectors(retriever, data):
    rows = np.flatnonzero(retriever.bundle.counts > 0)
    features = {name: values[rows] for name, values in data.modalities.items()}
    content = retriever.bundle.item_encoder.encode(features, len(rows))
    assert (np.abs(content - retriever.bundle.vectors[rows]).max(axis=1) > 1e-3).all()


def test_new_even_item_scores_higher_for_even_users(retriever, data):
    vectors, row = retriever.bundle.vectors, retriever.bundle.items.row_of("new-even")
    histories = [retriever.bundle.histories.get(f"user-{user}") for user in range(120)]
    scores = retriever.bundle.user_encoder.encode_histories(vectors, histories) @ vectors[row]
    assert scores[0::2].mean() > scores[1::2].mean()


def test_manifest_describes_the_run(retriever, data, bundles):
    manifest = retriever.bundle.manifest
    config = load_config(bundles.parent / "run.toml")
    assert manifest.run["config"] == config.model_dump(mode="json")
    assert manifest.name == "planted"
    training = manifest.run["training"]
    assert all(epoch.keys() == {"loss", "recall@50", "seconds"} for epoch in training["curve"])
    assert 1 <= training["best_epoch"] <= len(training["curve"]) <= 3
    metrics = manifest.metrics["test"]
    assert metrics["cases"] == 120
    assert {"model", "popularity", "ease", "buckets", "notes"} <= metrics.keys()
    assert metrics["model"]["recall@50"] > metrics["popularity"]["recall@50"]
    assert manifest.dataset.fingerprint == data.fingerprint
    assert manifest.dataset.notes == list(data.notes)
    assert "items without visual: 2" in manifest.dataset.notes
    assert manifest.modalities == {"textual": 6, "visual": 8}
    assert manifest.libraries.keys() >= {"torch", "onnxruntime", "python"}


def test_run_leaves_no_temporary_files(bundles):
    names = {path.name for path in bundles.iterdir()}
    hidden = {".lock", ".checkpoints", ".training"}
    assert names == {*BundleRegistry(bundles).versions(), "current", *hidden}
    assert list((bundles / ".checkpoints").iterdir()) == []
    assert len(list((bundles / ".training").iterdir())) == 1
    assert len(BundleRegistry(bundles).versions()) == 1


def test_published_attributes_exclude_features(retriever):
    table = pq.read_table(retriever.bundle.folder / "items.parquet")
    assert table.column_names == ["item_id", "title", "parity"]
    assert table.num_rows == 162


def test_published_filters_match_items_table(retriever):
    bundle = retriever.bundle
    assert bundle.manifest.filters == {"parity": 2}  # title is nearly unique
    assert bundle.manifest.attributes == ["title", "parity"]
    (even,) = bundle.filters.get("parity", ["even"])
    assert even.tolist() == list(range(0, 160, 2))
    (attributes,) = bundle.attributes.get(np.array([161]))
    assert attributes == b'{"title":"","parity":""}'


def test_run_rejects_unknown_column_before_training(shop, tmp_path, capsys):
    config = write_config(tmp_path / "run.toml", {"bundle": {"filters": ["flavour"]}})
    assert run(shop, tmp_path / "bundles", config) != 0
    assert "column 'flavour' of the items table does not exist" in capsys.readouterr().err
    assert not (tmp_path / "bundles").exists()

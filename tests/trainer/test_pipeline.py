"""One real run on a planted world, and what it published."""

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
from trainer.config import read_config
from trainer.data.dataset import load_dataset
from trainer.evaluate import rank_by_retriever
from trainer.metrics import build_evaluation_set

CLOSE = 1e-5


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The planted world, and two items more that nobody took; item-161 has no content."""
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


def test_online_answers_are_those_that_were_measured_offline(retriever, data):
    asked = build_evaluation_set(data)
    vectors = retriever.bundle.vectors
    assert len(asked.cases.user_rows) == 120
    for case, offline in enumerate(rank_by_retriever(retriever, asked)):
        history = asked.cases.histories.of(case)
        query = Query(50, history=[data.item_ids[row] for row in history])
        answer = retrieve_single(retriever, query)
        assert answer.fallback is None
        assert len(answer.item_ids) == 50
        query = answer.vector
        online = retriever.bundle.items.rows_of(answer.item_ids)
        for one, other in zip(online, offline, strict=False):
            assert one == other or abs((vectors[one] - vectors[other]) @ query) < CLOSE


def test_a_planted_even_users_candidates_are_even(retriever, data):
    shares = []
    for user in range(0, 120, 2):
        found = retrieve_single(retriever, Query(20, user_id=f"user-{user}")).item_ids
        known = [one for one in found if one.startswith("item-")]
        shares.append(np.mean([int(one[5:]) % 2 == 0 for one in known]))
    assert np.mean(shares) > 0.95


def test_a_new_user_with_one_click_is_served_from_it(retriever):
    found = retrieve_single(retriever, Query(20, history=["item-1"])).item_ids
    assert np.mean([one.startswith("item-") and int(one[5:]) % 2 == 1 for one in found]) > 0.8


def test_stored_histories_are_whole_and_seen_items_are_not_returned(retriever, data):
    took = data.interactions.item_rows[data.interactions.user_rows == 4]
    assert retriever.bundle.histories.get("user-4").tolist() == took.tolist()
    found = retrieve_single(retriever, Query(162, user_id="user-4")).item_ids
    assert set(found) == set(data.item_ids) - {data.item_ids[row] for row in took}


def test_the_item_encoder_gives_the_published_vectors_of_items_never_seen(retriever, data):
    bundle = retriever.bundle
    unseen = np.flatnonzero(bundle.counts == 0)
    assert {data.item_ids[row] for row in unseen} >= {"new-even", "new-blank"}
    features = {name: rows[unseen] for name, rows in data.modalities.items()}
    found = bundle.item_encoder.encode(features, len(unseen))
    np.testing.assert_allclose(found, bundle.vectors[unseen], rtol=0, atol=CLOSE)


def test_items_of_the_training_part_have_more_to_say_than_their_content(retriever, data):
    rows = np.flatnonzero(retriever.bundle.counts > 0)
    features = {name: values[rows] for name, values in data.modalities.items()}
    content = retriever.bundle.item_encoder.encode(features, len(rows))
    assert (np.abs(content - retriever.bundle.vectors[rows]).max(axis=1) > 1e-3).all()


def test_a_new_even_item_is_for_even_users(retriever, data):
    vectors, row = retriever.bundle.vectors, retriever.bundle.items.row_of("new-even")
    histories = [retriever.bundle.histories.get(f"user-{user}") for user in range(120)]
    scores = retriever.bundle.user_encoder.encode_histories(vectors, histories) @ vectors[row]
    assert scores[0::2].mean() > scores[1::2].mean()


def test_the_manifest_tells_the_run(retriever, data, bundles):
    manifest = retriever.bundle.manifest
    config = read_config(bundles.parent / "run.toml")
    assert manifest.run["config"] == config.model_dump(mode="json")
    assert manifest.name == "planted"
    assert [one.keys() for one in manifest.run["training"]["curve"]] == [
        {"loss", "recall@50", "seconds"}
    ] * len(manifest.run["training"]["curve"])
    assert 1 <= manifest.run["training"]["best_epoch"] <= 3
    measures = manifest.metrics["test"]
    assert measures["cases"] == 120
    assert {"model", "popularity", "ease", "buckets", "notes"} <= measures.keys()
    assert measures["model"]["recall@50"] > measures["popularity"]["recall@50"]
    assert manifest.dataset.fingerprint == data.fingerprint
    assert manifest.dataset.notes == list(data.notes)
    assert "items without visual: 2" in manifest.dataset.notes
    assert manifest.modalities == {"textual": 6, "visual": 8}
    assert manifest.libraries.keys() >= {"torch", "onnxruntime", "python"}


def test_nothing_is_left_over_but_what_is_published(bundles):
    left = {path.name for path in bundles.iterdir()}
    assert left == {*BundleRegistry(bundles).versions(), "current", ".lock", ".checkpoints"}
    assert list((bundles / ".checkpoints").iterdir()) == []
    assert len(BundleRegistry(bundles).versions()) == 1


def test_attributes_are_published_without_features(retriever):
    table = pq.read_table(retriever.bundle.folder / "items.parquet")
    assert table.column_names == ["item_id", "title", "parity"]
    assert table.num_rows == 162


def test_the_items_can_be_filtered_by_what_their_table_says(retriever):
    bundle = retriever.bundle
    assert bundle.manifest.filters == {"parity": 2}  # a title is nearly an id
    assert bundle.manifest.attributes == ["title", "parity"]
    (even,) = bundle.filters.get("parity", ["even"])
    assert even.tolist() == list(range(0, 160, 2))
    (told,) = bundle.attributes.get(np.array([161]))
    assert told == b'{"title":"","parity":""}'


def test_a_column_that_cannot_be_stops_before_the_training(shop, tmp_path, capsys):
    config = write_config(tmp_path / "run.toml", {"bundle": {"filters": ["flavour"]}})
    assert run(shop, tmp_path / "bundles", config) != 0
    assert "'flavour' is no such column of the items table" in capsys.readouterr().err
    assert not (tmp_path / "bundles").exists()

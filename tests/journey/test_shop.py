"""The whole path: generate a shop, train, serve, query."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from examples.catalogue import ShopSize, make_catalogue
from examples.demo import item_titles
from examples.demo_clusters import show_clusters
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Query
from index.search.retriever import Retriever
from tests.support.http_caller import until
from tests.support.preforked import run
from tests.support.service_process import start_service
from trainer.config import RunConfig
from trainer.data.dataset import load_dataset
from trainer.data.interactions import sample_cases
from trainer.evaluate import rank_by_retriever
from trainer.metrics import DEPTH, build_evaluation_set

pytestmark = pytest.mark.e2e

NUM_QUERIES, CANDIDATES = 60, 10


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "data"
    make_catalogue(folder, ShopSize(items=600, users=800, interactions=12_000), seed=3)
    return folder


@pytest.fixture(scope="module")
def bundles(shop, tmp_path_factory):
    bundles = tmp_path_factory.mktemp("bundles")
    status, errors, _ = run("trainer", "run", "--data", str(shop), "--bundles", str(bundles))
    assert status == 0, errors
    return bundles


@pytest.fixture(scope="module")
def client(bundles):
    with start_service(bundles) as (client, _):
        until(lambda: client.get("/readyz").status_code == 200, limit_s=60)
        yield client


@pytest.fixture(scope="module")
def category_of(shop):
    rows = pq.read_table(shop / "items.parquet").to_pylist()
    return {row["item_id"]: f"{row['department']} > {row['category']}" for row in rows}


def item_ids_of(response):
    return [candidate["item_id"] for candidate in response.raise_for_status().json()["candidates"]]


def candidates(client, **query):
    return item_ids_of(client.post("/retrieve", json={"k": CANDIDATES, **query}))


def test_demo_shows_clusters_and_negatives_of_the_default_run(shop, bundles, client, capsys):
    data = load_dataset(shop)
    show_clusters(str(client.base_url), shop, bundles, data, item_titles(data))
    output = capsys.readouterr().out
    assert output.count("items (code, title)") == 3
    assert output.count("    easy  ") == output.count("    hard  ") == 3


def test_retrieve_returns_the_users_planted_tastes(shop, client, category_of):
    planted = pq.read_table(shop / "planted.parquet").to_pylist()[:NUM_QUERIES]
    hits = [
        category_of[item_id] in user["tastes"]
        for user in planted
        for item_id in candidates(client, user_id=user["user_id"])
    ]
    assert len(hits) == NUM_QUERIES * CANDIDATES
    assert sum(hits) > 0.8 * len(hits)  # two or three of thirty categories: at random under 10 %


def test_retrieve_for_a_click_returns_its_category(client, category_of):
    clicks = list(category_of)[:NUM_QUERIES]
    hits = [
        category_of[item_id] == category_of[click]
        for click in clicks
        for item_id in candidates(client, history=[click])
    ]
    assert sum(hits) > 0.9 * len(hits)  # one of thirty categories: at random under 4 %


def test_retrieve_equals_the_offline_evaluation(shop, bundles, client):
    data = load_dataset(shop)
    evaluation = build_evaluation_set(data, RunConfig())
    sampled = sample_cases(evaluation.cases, NUM_QUERIES, np.random.default_rng(0))
    bundle = open_bundle(BundleRegistry(bundles).current())
    offline = rank_by_retriever(Retriever(bundle), replace(evaluation, cases=sampled))
    for case, expected in enumerate(offline):
        history = [data.item_ids[row] for row in sampled.histories.get(case)]
        response = client.post("/retrieve", json={"history": history, "k": DEPTH})
        rows = bundle.items.rows_of(item_ids_of(response))
        query = Retriever(bundle).encode([Query(DEPTH, history=history)])[0].vector
        assert response.json()["bundle"] == bundle.version
        assert len(rows) == len(set(rows)) == len(expected)
        differences = np.abs(bundle.vectors[rows] @ query - bundle.vectors[expected] @ query)
        assert differences.max() <= 1e-5  # the same ids, except where scores tie within this


def test_similar_items_share_the_category(client, category_of):
    hits = []
    for item_id in list(category_of)[:NUM_QUERIES]:
        response = client.get(f"/items/{item_id}/similar", params={"k": CANDIDATES})
        similar = item_ids_of(response)
        hits += [category_of[other] == category_of[item_id] for other in similar]
    assert sum(hits) > 0.9 * len(hits)


def test_embed_equals_the_vectors_that_are_searched(shop, bundles, client):
    bundle, data = open_bundle(BundleRegistry(bundles).current()), load_dataset(shop)
    all_vectors = bundle.item_encoder.encode(data.modalities, len(data.item_ids))
    features = {name: rows[:NUM_QUERIES] for name, rows in data.modalities.items()}
    items = [
        {
            name: None if np.isnan(rows[row]).all() else rows[row].tolist()
            for name, rows in features.items()
        }
        for row in range(NUM_QUERIES)
    ]
    embedded = client.post("/embed", json={"items": items}).raise_for_status().json()
    for vector, expected, content in zip(embedded["vectors"], all_vectors, items, strict=False):
        if any(content.values()):
            np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-5)
    user = {"user_id": data.user_ids[0]}
    (vector,) = client.post("/embed", json={"users": [user]}).json()["vectors"]
    for candidate in client.post("/retrieve", json=user).json()["candidates"]:
        score = bundle.vectors[bundle.items.row_of(candidate["item_id"])] @ np.float32(vector)
        assert abs(score - candidate["score"]) <= 1e-5

"""Cluster maps from a folder; test_redis covers Redis."""

from datetime import timedelta

import numpy as np
import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from index.bundle.registry import BundleRegistry
from index.cluster_map import ClusterMap
from service.logging_config import JsonFormatter
from service.schemas.clusters import ClustersResponse
from tests.support.cluster_maps import local_maps
from tests.support.http_caller import logged_lines, running, until
from tests.support.problems import assert_problem
from tests.support.synthetic_bundle import NOW, handmade_map, publish_handmade

CODES = {row: [row % 4, row // 4 % 3] for row in range(40)}


def retrieve_codes(caller, **query):
    body = caller.retrieve(**query, include=["clusters"]).json()
    return {candidate["item_id"]: candidate["cluster"] for candidate in body["candidates"]}


@pytest.fixture(scope="module")
def own_map(tmp_path_factory):
    """Caller of an app whose bundle has a map; the store is empty."""
    bundles = tmp_path_factory.mktemp("own")
    publish_handmade(bundles, clusters=handmade_map())
    with running(bundles) as caller:
        caller.wait_for_clusters("empty", handmade_map().version)
        yield caller


def test_bundle_map_is_used_if_none_is_published(own_map):
    body = own_map.get("/clusters").json()
    assert (body["version"], body["source"]) == (handmade_map().version, "bundle")
    assert (body["items"], body["unknown_items"]) == (40, 0)
    assert (body["level_1_codes"], body["level_2_codes"]) == (4, 3)
    assert body["made"]["turn"] == 0
    assert body["age_seconds"] > 0
    assert (body["sequence"], body["is_pinned"]) == (None, False)
    assert body["follower"]["status"] == "empty"
    assert body["bundle"] == own_map.get("/bundle").json()["version"]


def test_clusters_response_matches_schema(own_map):
    closed = with_config(ConfigDict(extra="forbid"))(ClustersResponse)
    TypeAdapter(closed).validate_json(own_map.get("/clusters").content, strict=True)


def test_include_clusters_adds_codes(own_map):
    body = own_map.retrieve(history=["item-0"], k=20, include=["clusters"]).json()
    assert body["clusters"] == handmade_map().version
    for candidate in body["candidates"]:
        assert candidate["cluster"] == CODES[int(candidate["item_id"][5:])]
    plain = own_map.retrieve(history=["item-0"], k=20).json()
    assert plain.keys() == {"bundle", "candidates"}
    assert {frozenset(candidate) for candidate in plain["candidates"]} == {
        frozenset(("item_id", "score"))
    }


def test_include_clusters_with_reordered_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("index.ann.tuning.FLAT_LIMIT", 10)
    publish_handmade(tmp_path, clusters=handmade_map())
    with running(tmp_path) as caller:
        caller.wait_for_clusters("empty", handmade_map().version)
        assert retrieve_codes(caller, history=["item-0"], k=39) == {
            f"item-{row}": codes for row, codes in CODES.items() if row
        }


def test_include_clusters_for_popularity_fallback(own_map):
    assert retrieve_codes(own_map, user_id="unknown-user", k=2) == {
        "item-0": [0, 0],
        "item-1": [1, 0],
    }


def test_unknown_include_value_is_rejected(own_map):
    problem = assert_problem(own_map.retrieve(include=["vectors"]), 422)
    assert problem["errors"][0]["location"] == "include.0"


def test_without_map_clusters_are_null_and_routes_404(caller):
    caller.wait_for_clusters("empty", reason="no cluster map is published in")
    body = caller.retrieve(history=["item-0"], k=5, include=["clusters"]).json()
    assert {candidate["cluster"] for candidate in body["candidates"]} == {None}
    assert "clusters" not in body
    for response in (caller.get("/clusters"), caller.negatives(positives=[], easy=1, hard=1)):
        assert "no cluster map is in use" in assert_problem(response, 404)["detail"]
    assert caller.metric('esans_cluster_map_swaps_total{result="live"}') == 0
    assert "esans_cluster_map_info" not in caller.get("/metrics").text
    assert "esans_redis" not in caller.get("/metrics").text


def test_cluster_routes_before_bundle_is_live_return_503(empty):
    for response in (empty.get("/clusters"), empty.negatives(positives=[], easy=1, hard=1)):
        assert "no bundle is live yet" in assert_problem(response, 503)["detail"]
    assert "clusters" not in empty.get("/readyz").json()


def test_published_map_is_swapped_in(tmp_path):
    publish_handmade(tmp_path)
    store = local_maps(tmp_path / "clusters")
    with running(tmp_path) as caller, logged_lines(JsonFormatter()) as lines:
        caller.wait_for_clusters("empty")
        for shift in (1, 2):
            clusters = handmade_map(shift=shift)
            pointer = store.publish(clusters)
            caller.wait_for_clusters("following", clusters.version)
            body = caller.get("/clusters").json()
            assert (body["version"], body["source"]) == (clusters.version, "folder")
            assert body["sequence"] == pointer.sequence
            for item, cluster in retrieve_codes(caller, history=["item-0"], k=10).items():
                assert cluster[0] == (int(item[5:]) + shift) % 4
        info = f'esans_cluster_map_info{{source="folder",version="{clusters.version}"}}'
        assert caller.metric(info) == 1
        assert caller.metric('esans_cluster_map_swaps_total{result="live"}') == 2
        assert caller.metric('esans_cluster_map_swaps_total{result="rejected"}') == 0
        assert caller.metric("esans_cluster_map_items") == 40
        assert caller.metric("esans_cluster_map_age_seconds") > 0
        assert handmade_map(shift=1).version not in caller.get("/metrics").text
    swaps = [line for line in lines if line["event"] == "cluster map is live"]
    assert [line["version"] for line in swaps] == [handmade_map(shift=t).version for t in (1, 2)]


def test_incompatible_map_is_rejected(tmp_path):
    publish_handmade(tmp_path)
    store = local_maps(tmp_path / "clusters")
    store.publish(handmade_map())
    with running(tmp_path) as caller, logged_lines(JsonFormatter(), "clusters") as lines:
        caller.wait_for_clusters("following", handmade_map().version)
        store.publish(handmade_map(prefix="foreign"))
        status = caller.wait_for_clusters("rejected", handmade_map().version)
        assert status["source"] == "folder"
        assert caller.get("/readyz").status_code == 200
        assert caller.metric('esans_cluster_map_swaps_total{result="rejected"}') == 1
        store.roll_back()
        caller.wait_for_clusters("following", handmade_map().version)
    assert any("rejected" in line["event"] for line in lines)


def test_items_unknown_to_map_have_no_cluster(tmp_path):
    publish_handmade(tmp_path)
    whole = handmade_map()
    rows = np.arange(39)  # item-39 is missing
    local_maps(tmp_path / "clusters").publish(
        ClusterMap(whole.codes1[rows], whole.codes2[rows], whole.centroids, whole.id_hashes[rows])
    )
    with running(tmp_path) as caller:
        caller.wait_for_clusters("following")
        codes = retrieve_codes(caller, history=["item-1"], k=39)
        assert codes["item-39"] is None
        assert codes["item-38"] == CODES[38]
        body = caller.get("/clusters").json()
        assert (body["items"], body["unknown_items"], body["level_1_codes"]) == (39, 1, 4)


def test_map_is_joined_with_new_bundle(tmp_path):
    publish_handmade(tmp_path, count=40)
    clusters = handmade_map(count=41)
    local_maps(tmp_path / "clusters").publish(clusters)
    with running(tmp_path) as caller:
        caller.wait_for_clusters("following", clusters.version)
        second = publish_handmade(tmp_path, NOW + timedelta(days=1), count=41)
        caller.wait_for("ready", second)
        until(lambda: caller.get("/clusters").json()["bundle"] == second, 30)
        assert retrieve_codes(caller, history=["item-0"], k=41)["item-40"] == [0, 1]
        BundleRegistry(tmp_path).roll_back()
        until(lambda: caller.get("/clusters").json()["bundle"] != second, 30)
        assert caller.get("/clusters").json()["version"] == clusters.version


def test_incompatible_bundle_uses_its_own_map(tmp_path):
    publish_handmade(tmp_path)
    local_maps(tmp_path / "clusters").publish(handmade_map())
    with running(tmp_path) as caller:
        caller.wait_for_clusters("following", handmade_map().version)
        own = handmade_map(prefix="other", shift=1)
        second = publish_handmade(tmp_path, NOW + timedelta(days=1), prefix="other", clusters=own)
        caller.wait_for("ready", second)
        status = caller.wait_for_clusters("rejected", own.version)
        assert status["source"] == "bundle"
        assert retrieve_codes(caller, history=["other-0"], k=1)


def test_bundle_with_incompatible_map_serves_without_map(tmp_path):
    with logged_lines(JsonFormatter()) as lines:
        publish_handmade(tmp_path, clusters=handmade_map(prefix="foreign"))
        with running(tmp_path) as caller:
            caller.wait_for("ready")
            caller.wait_for_clusters("empty")
            assert set(retrieve_codes(caller, history=["item-0"], k=3).values()) == {None}
    assert any("own cluster map ignored" in line["event"] for line in lines)

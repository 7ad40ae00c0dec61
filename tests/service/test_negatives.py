import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from service.schemas.clusters import NegativesResponse
from tests.support.http_caller import running
from tests.support.line_map import all_rows, assert_samples_match, rows
from tests.support.problems import assert_problem
from tests.support.synthetic_bundle import handmade_map, publish_handmade

IDS = [f"item-{row}" for row in range(40)]


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("own")
    publish_handmade(bundles, clusters=handmade_map())
    with running(bundles) as caller:
        caller.wait_for_clusters("empty", handmade_map().version)
        yield caller


def sample(caller, **query):
    response = caller.negatives(**query)
    assert response.status_code == 200
    return response.json()


def sampled_rows(body, kind):
    rows = [[int(item_id[5:]) for item_id in row] for row in body[kind]]
    return np.array(rows, dtype=np.int32)


@pytest.mark.parametrize(("easy", "hard"), [(8, 6), (8, 0), (0, 6)])
def test_negatives_match_proposal_distribution(caller, easy, hard):
    clusters = handmade_map()
    body = sample(caller, positives=["item-5"] * 2_000, easy=easy, hard=hard, seed=1)
    probabilities = {"easy": clusters.easy_probability, "hard": clusters.hard_probability}
    for kind, count in (("easy", easy), ("hard", hard)):
        sampled = sampled_rows(body, kind)
        assert sampled.shape == (2_000, count)
        if count:
            assert_samples_match(sampled, probabilities[kind](rows(5), all_rows(clusters))[0])


def test_log_counts_match_expected_counts(caller):
    clusters, positives = handmade_map(), [0, 5, 39]
    body = sample(caller, positives=[IDS[row] for row in positives], easy=6, hard=4, seed=2)
    expected_counts = 6 * clusters.easy_probability(rows(*positives), all_rows(clusters))
    expected_counts += 4 * clusters.hard_probability(rows(*positives), all_rows(clusters))
    for kind in ("easy", "hard"):
        expected = np.log(np.take_along_axis(expected_counts, sampled_rows(body, kind), axis=1))
        np.testing.assert_allclose(body[f"{kind}_log_counts"], expected, rtol=1e-6)


def test_negatives_response_keeps_order_and_versions(caller):
    body = sample(caller, positives=["item-7", "lost", "item-3", 12], easy=2, hard=1)
    assert body["positives"] == ["item-7", "item-3"]
    assert [len(row) for row in body["easy"] + body["hard_log_counts"]] == [2, 2, 1, 1]
    assert body["unknown_items"] == ["lost", "12"]
    assert body["clusters"] == handmade_map().version
    assert body["bundle"] == caller.get("/bundle").json()["version"]


def test_negatives_response_matches_schema(caller):
    closed = with_config(ConfigDict(extra="forbid"))(NegativesResponse)
    for positives in (IDS[:3], ["lost"], []):
        response = caller.negatives(positives=positives, easy=2, hard=1)
        TypeAdapter(closed).validate_json(response.content, strict=True)
        assert response.headers["cache-control"] == "no-store"


def test_negatives_with_same_seed_are_equal(caller):
    query = {"positives": IDS, "easy": 5, "hard": 5}
    first, again, other = (sample(caller, **query, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["easy"] != other["easy"]
    assert first["hard"] != other["hard"]
    assert sample(caller, **query) != sample(caller, **query)


def test_many_negatives_exclude_own_cell(caller):
    body = sample(caller, positives=IDS * 25, easy=500, hard=500, seed=3)
    clusters = handmade_map()
    sampled = sampled_rows(body, "easy")
    assert sampled.shape == (1_000, 500)
    assert not clusters.is_same_cell(np.tile(all_rows(clusters), 25), sampled).any()


def test_zero_negatives_returns_empty_lists(caller):
    body = sample(caller, positives=[], easy=1, hard=1)
    assert [body[key] for key in ("positives", "easy", "hard_log_counts")] == [[], [], []]
    body = sample(caller, positives=IDS, easy=0, hard=0)
    assert body["positives"] == IDS
    assert body["easy"] == body["hard_log_counts"] == [[]] * 40


@pytest.mark.parametrize(
    ("change", "location", "expected"),
    [
        ({"easy": 1_001}, "easy", "less than or equal to 1000"),
        ({"easy": -1}, "easy", "greater than or equal to 0"),
        ({"hard": 1_001}, "hard", "less than or equal to 1000"),
        ({"hard": -1}, "hard", "greater than or equal to 0"),
        ({"hard": 1.0}, "hard", "valid integer"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 2**63}, "seed", "less than 9223372036854775808"),
        ({"positives": [1.5]}, "positives.0", "string of 1 to 512 characters"),
        ({"positives": ["x" * 513]}, "positives.0", "string of 1 to 512 characters"),
        ({"positives": [1] * 10_001}, "positives", "at most 10000"),
        ({"positives": [1] * 1_001, "easy": 500, "hard": 500}, "positives", "1001000"),
        ({"positives": [1] * 10_000, "easy": 101, "hard": 0}, "positives", "split the request"),
        ({"count": 1}, "count", "no such field"),
    ],
)
def test_invalid_negatives_request_names_location(caller, change, location, expected):
    query = {"positives": ["item-1"], "easy": 1, "hard": 1} | change
    problem = assert_problem(caller.negatives(**query), 422)
    (error,) = problem["errors"]
    assert error["location"] == location
    assert expected in error["expected"]


def test_negatives_counts_default_to_ten(caller):
    body = sample(caller, positives=["item-3"])
    assert [len(body[kind][0]) for kind in ("easy", "hard", "hard_log_counts")] == [10, 10, 10]


def test_negatives_without_positives_are_rejected(caller):
    (error,) = assert_problem(caller.negatives(easy=1), 422)["errors"]
    assert error["location"] == "positives"


def test_negatives_accepts_maximum_sizes(caller):
    ids = [item_id for item_id in IDS for _ in range(250)]
    body = sample(caller, positives=ids, easy=1, hard=1, seed=2**63 - 1)
    assert len(body["positives"]) == len(body["easy"]) == 10_000
    assert len(sample(caller, positives=IDS[:1], easy=1_000, hard=1_000)["hard"][0]) == 1_000
    largest = caller.negatives(positives=IDS * 25, easy=1_000, hard=0)
    assert largest.content.count(b"item-") == 1_001_000


def test_negatives_body_above_limit_returns_413(tmp_path):
    publish_handmade(tmp_path, clusters=handmade_map())
    with running(tmp_path, body_limit_bytes=1_024) as caller:
        caller.wait_for("ready")
        body = json.dumps({"positives": IDS * 10, "easy": 1, "hard": 1})
        assert_problem(caller.request("POST", "/negatives", content=body), 413)


def test_queries_are_served_while_sampling_negatives(caller):
    query = {"positives": IDS * 25, "easy": 500, "hard": 500}
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(caller.negatives, **query) for _ in range(4)]
        num_served = 0
        while not all(future.done() for future in futures):
            assert caller.retrieve(history=["item-0"], k=5).status_code == 200
            num_served += 1
    assert {future.result().status_code for future in futures} == {200}
    assert num_served >= 4

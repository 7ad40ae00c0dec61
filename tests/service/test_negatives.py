import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from service.schemas.clusters import NegativesResponse
from tests.index.test_cluster_map import assert_drawn_as_told, everyone, rows
from tests.service.test_problems import problem
from tests.support.http_caller import running
from tests.support.synthetic_bundle import handmade_map, publish_handmade

IDS = [f"item-{row}" for row in range(40)]


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("own")
    publish_handmade(bundles, clusters=handmade_map())
    with running(bundles) as caller:
        caller.wait_for_clusters("empty", handmade_map().version)
        yield caller


def told_by(caller, **question):
    answer = caller.negatives(**question)
    assert answer.status_code == 200
    return answer.json()


def drawn_rows(told, kind):
    rows = [[int(one[5:]) for one in row] for row in told[kind]]
    return np.array(rows, dtype=np.int32)


@pytest.mark.parametrize(("easy", "hard"), [(8, 6), (8, 0), (0, 6)])
def test_negatives_are_drawn_as_often_as_the_map_tells(caller, easy, hard):
    found = handmade_map()
    told = told_by(caller, positives=["item-5"] * 2_000, easy=easy, hard=hard, seed=1)
    chances = {"easy": found.easy_chance, "hard": found.hard_chance}
    for kind, count in (("easy", easy), ("hard", hard)):
        drawn = drawn_rows(told, kind)
        assert drawn.shape == (2_000, count)
        if count:
            assert_drawn_as_told(drawn, chances[kind](rows(5), everyone(found))[0])


def test_log_counts_are_those_of_the_whole_rows_law(caller):
    found, positives = handmade_map(), [0, 5, 39]
    told = told_by(caller, positives=[IDS[row] for row in positives], easy=6, hard=4, seed=2)
    law = 6 * found.easy_chance(rows(*positives), everyone(found))
    law += 4 * found.hard_chance(rows(*positives), everyone(found))
    for kind in ("easy", "hard"):
        expected = np.log(np.take_along_axis(law, drawn_rows(told, kind), axis=1))
        np.testing.assert_allclose(told[f"{kind}_log_counts"], expected, rtol=1e-6)


def test_the_answer_names_its_map_and_keeps_the_order(caller):
    told = told_by(caller, positives=["item-7", "lost", "item-3", 12], easy=2, hard=1)
    assert told["positives"] == ["item-7", "item-3"]
    assert [len(row) for row in told["easy"] + told["hard_log_counts"]] == [2, 2, 1, 1]
    assert told["unknown_items"] == ["lost", "12"]
    assert told["clusters"] == handmade_map().version
    assert told["bundle"] == caller.get("/bundle").json()["version"]


def test_an_answer_is_what_the_schema_says(caller):
    closed = with_config(ConfigDict(extra="forbid"))(NegativesResponse)
    for positives in (IDS[:3], ["lost"], []):
        answer = caller.negatives(positives=positives, easy=2, hard=1)
        TypeAdapter(closed).validate_json(answer.content, strict=True)
        assert answer.headers["cache-control"] == "no-store"


def test_the_same_seed_draws_the_same_and_two_differ(caller):
    question = {"positives": IDS, "easy": 5, "hard": 5}
    one, again, other = (told_by(caller, **question, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one["easy"] != other["easy"]
    assert one["hard"] != other["hard"]
    assert told_by(caller, **question) != told_by(caller, **question)


def test_an_answer_of_very_many_negatives_is_the_same_as_one_by_one_in_kind(caller):
    told = told_by(caller, positives=IDS * 25, easy=500, hard=500, seed=3)
    found = handmade_map()
    drawn = drawn_rows(told, "easy")
    assert drawn.shape == (1_000, 500)
    assert not found.same_cell(np.tile(everyone(found), 25), drawn).any()


def test_nothing_asked_for_is_an_empty_answer(caller):
    told = told_by(caller, positives=[], easy=1, hard=1)
    assert [told[key] for key in ("positives", "easy", "hard_log_counts")] == [[], [], []]
    told = told_by(caller, positives=IDS, easy=0, hard=0)
    assert told["positives"] == IDS
    assert told["easy"] == told["hard_log_counts"] == [[]] * 40


@pytest.mark.parametrize(
    ("change", "place", "told"),
    [
        ({"easy": 1_001}, "easy", "less than or equal to 1000"),
        ({"easy": -1}, "easy", "greater than or equal to 0"),
        ({"hard": 1_001}, "hard", "less than or equal to 1000"),
        ({"hard": -1}, "hard", "greater than or equal to 0"),
        ({"hard": 1.0}, "hard", "valid integer"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 2**63}, "seed", "less than 9223372036854775808"),
        ({"positives": [1.5]}, "positives.0", "text of 1 to 512 characters"),
        ({"positives": ["x" * 513]}, "positives.0", "text of 1 to 512 characters"),
        ({"positives": [1] * 10_001}, "positives", "at most 10000"),
        ({"positives": [1] * 1_001, "easy": 500, "hard": 500}, "positives", "1001000"),
        ({"positives": [1] * 10_000, "easy": 101, "hard": 0}, "positives", "ask in parts"),
        ({"count": 1}, "count", "no such key here"),
    ],
)
def test_a_bound_that_is_broken_is_named_by_place(caller, change, place, told):
    question = {"positives": ["item-1"], "easy": 1, "hard": 1} | change
    answer = problem(caller.negatives(**question), 422)
    (fault,) = answer["errors"]
    assert fault["location"] == place
    assert told in fault["expected"]


@pytest.mark.parametrize("missing", ["positives", "easy", "hard"])
def test_what_must_be_told_is_named(caller, missing):
    question = {"positives": ["item-1"], "easy": 1, "hard": 1}
    del question[missing]
    assert problem(caller.negatives(**question), 422)["errors"][0]["location"] == missing


def test_at_the_bounds_it_is_answered(caller):
    ids = [one for one in IDS for _ in range(250)]
    told = told_by(caller, positives=ids, easy=1, hard=1, seed=2**63 - 1)
    assert len(told["positives"]) == len(told["easy"]) == 10_000
    assert len(told_by(caller, positives=IDS[:1], easy=1_000, hard=1_000)["hard"][0]) == 1_000
    most = caller.negatives(positives=IDS * 25, easy=1_000, hard=0)
    assert most.content.count(b"item-") == 1_001_000


def test_a_body_beyond_the_limit_is_refused(tmp_path):
    publish_handmade(tmp_path, clusters=handmade_map())
    with running(tmp_path, body_limit_bytes=1_024) as caller:
        caller.wait_for("ready")
        body = json.dumps({"positives": IDS * 10, "easy": 1, "hard": 1})
        problem(caller.ask("POST", "/negatives", content=body), 413)


def test_others_are_answered_while_very_many_negatives_are_drawn(caller):
    question = {"positives": IDS * 25, "easy": 500, "hard": 500}
    with ThreadPoolExecutor(4) as pool:
        many = [pool.submit(caller.negatives, **question) for _ in range(4)]
        answered = 0
        while not all(one.done() for one in many):
            assert caller.retrieve(history=["item-0"], k=5).status_code == 200
            answered += 1
    assert {one.result().status_code for one in many} == {200}
    assert answered >= 4

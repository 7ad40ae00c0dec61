import json

import numpy as np
import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from service.schemas.embed import EmbedResponse
from tests.service.test_problems import problem
from tests.support.http_caller import running
from tests.support.synthetic_bundle import item_vectors, mean_query, publish_handmade
from tests.support.synthetic_towers import BY_PRESENCE, BY_WORD, visual_of

CLOSE = {"rtol": 0, "atol": 1e-5}
LOOK = [1.0] * 8


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """An app whose bundle knows the content of items."""
    bundles = tmp_path_factory.mktemp("content")
    publish_handmade(bundles, with_content=True)
    with running(bundles) as caller:
        caller.wait_for("ready")
        yield caller


def embedded(caller, **asked):
    answer = caller.ask("POST", "/embed", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_a_users_vector_is_the_query_that_scores_the_candidates(caller):
    users = [{"history": ["item-0", "item-2"]}, {"user_id": "user-1"}]
    told = embedded(caller, users=users)
    assert told.keys() == {"bundle", "vectors"}
    for user, vector in zip(users, told["vectors"], strict=True):
        for one in caller.retrieve(**user, k=20).json()["candidates"]:
            own = item_vectors()[int(one["item_id"][5:])]
            np.testing.assert_allclose(own @ np.float32(vector), one["score"], **CLOSE)


def test_many_users_are_embedded_as_each_alone(caller):
    users = [{"history": [f"item-{n}" for n in range(row + 1)]} for row in range(38)]
    together = embedded(caller, users=users)["vectors"]
    for row, vector in enumerate(together):
        np.testing.assert_allclose(vector, mean_query(item_vectors(), range(row + 1)), **CLOSE)
        (alone,) = embedded(caller, users=[users[row]])["vectors"]
        np.testing.assert_allclose(vector, alone, **CLOSE)


def test_where_no_history_can_be_used_there_is_no_vector_but_a_reason(caller):
    users = [
        {"user_id": "nobody"},
        {"history": ["item-0", "lost", 7]},
        {},
        {"history": ["lost"], "user_id": "user-0"},
    ]
    told = embedded(caller, users=users)
    assert [one is None for one in told["vectors"]] == [True, False, True, True]
    assert told["fallbacks"] == ["unknown_user", None, "empty_history", "no_known_items"]
    assert told["unknown_items"] == [[], ["lost", "7"], [], ["lost"]]


def test_an_item_of_the_catalogue_gets_the_vector_that_the_bundle_holds(seeing):
    looks = visual_of(item_vectors())
    told = embedded(seeing, items=[{"look": row.tolist(), "words": None} for row in looks])
    assert told.keys() == {"bundle", "vectors"}
    np.testing.assert_allclose(told["vectors"], item_vectors(), **CLOSE)


def test_what_is_missing_of_an_item_is_null_left_out_or_zero(seeing):
    words = np.array([0, 2, -1], dtype=np.float32)
    items = [{"words": words.tolist()}, {"words": [0, 2, -1], "look": None}]
    items += [{"look": [0] * 8, "words": [0, 2, -1]}]
    expected = unit(words @ BY_WORD + BY_PRESENCE[1])
    for vector in embedded(seeing, items=items)["vectors"]:
        np.testing.assert_allclose(vector, expected, **CLOSE)
    both = embedded(seeing, items=[{"look": LOOK, "words": words.tolist()}])["vectors"]
    whole = unit(np.float32(LOOK) + words @ BY_WORD + BY_PRESENCE.sum(axis=0))
    np.testing.assert_allclose(both, [whole], **CLOSE)


def test_an_item_without_any_content_has_no_vector_but_a_reason(seeing):
    told = embedded(seeing, items=[{}, {"look": LOOK}, {"look": None}, {"words": [0, 0, 0]}])
    assert [one is None for one in told["vectors"]] == [True, False, True, True]
    assert told["fallbacks"] == ["no_features", None, "no_features", "no_features"]


def test_an_answer_is_what_the_schema_says(caller, seeing):
    closed = TypeAdapter(with_config(ConfigDict(extra="forbid"))(EmbedResponse))
    asked = [{"users": [{"user_id": "user-0"}, {"history": ["lost"]}]}, {"users": [{}]}]
    asked += [{"items": [{"look": LOOK}, {}]}, {"items": [{"words": [1, 2, 3]}]}]
    for body in asked:
        answer = seeing.ask("POST", "/embed", json=body)
        closed.validate_json(answer.content, strict=True)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["bundle"] == seeing.get("/bundle").json()["version"]


@pytest.mark.parametrize(
    ("body", "place", "found", "expected"),
    [
        ("{}", "the body", "{}", "exactly one of `users` and `items`"),
        ('{"users": [{}], "items": [{}]}', "the body", "users", "exactly one"),
        ('{"users": []}', "users", "[]", "at least 1"),
        ('{"items": []}', "items", "[]", "at least 1"),
        ('{"users": null}', "users", "null", "valid array"),
        (json.dumps({"users": [{}] * 257}), "users", "{}", "at most 256"),
        (json.dumps({"items": [{}] * 257}), "items", "{}", "at most 256"),
        ('{"users": [{}, {"history": [1.5]}]}', "users.1.history.0", "1.5", "an id is text"),
        ('{"users": [{"k": 5}]}', "users.0.k", "5", "no such key here"),
        ('{"items": [{"look": [NaN]}]}', "items.0.look.0", "NaN", "finite"),
        ('{"items": [{"look": [1, -Infinity]}]}', "items.0.look.1", "-Inf", "finite"),
        ('{"items": [{"look": [1e39]}]}', "items.0.look.0", "1e+39", "less than or equal"),
        ('{"items": [{"look": ["1"]}]}', "items.0.look.0", '"1"', "valid number"),
        ('{"items": [{"look": [1, null]}]}', "items.0.look.1", "null", "valid number"),
        ('{"items": [{"look": 1}]}', "items.0.look", "1", "valid array"),
        ('{"items": [null]}', "items.0", "null", "an object"),
        (
            '{"items": [{}, {"sound": [1]}]}',
            "items.1.sound",
            "sound",
            "a modality of the bundle: look (8 numbers), words (3 numbers)",
        ),
        ('{"items": [{"look": [1, 2]}]}', "items.0.look", "2 numbers", "8 numbers, or null"),
        ('{"items": [{"words": []}]}', "items.0.words", "0 numbers", "3 numbers, or null"),
    ],
)
def test_what_breaks_a_rule_is_named_by_place(seeing, body, place, found, expected):
    told = problem(seeing.ask("POST", "/embed", content=body), 422)
    fault = told["errors"][0]
    assert fault["location"] == place
    assert found in fault["received"]
    assert expected in fault["expected"]


def test_of_very_many_faults_the_first_are_told(seeing):
    told = problem(seeing.ask("POST", "/embed", json={"items": [{"sound": [1]}] * 100}), 422)
    assert len(told["errors"]) == 20
    assert "and 99 more" in told["detail"]


def test_without_content_the_bundle_says_why_it_embeds_no_items(caller):
    told = problem(caller.ask("POST", "/embed", json={"items": [{}]}), 409)
    assert "a catalogue without content" in told["detail"]
    assert caller.get("/bundle").json()["version"] in told["detail"]


def test_the_largest_numbers_are_taken(seeing):
    told = embedded(seeing, items=[{"look": [-1e15] * 8}, {"look": [1e15, *LOOK[1:]]}])
    np.testing.assert_allclose(np.linalg.norm(told["vectors"], axis=1), 1, **CLOSE)


def test_before_a_bundle_is_live_the_question_may_come_again_soon(empty):
    problem(empty.ask("POST", "/embed", json={"users": [{}]}), 503)

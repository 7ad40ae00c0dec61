import json

import numpy as np
import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from service.schemas.embed import EmbedResponse
from tests.support.http_caller import running
from tests.support.problems import assert_problem
from tests.support.synthetic_bundle import item_vectors, mean_query, publish_handmade
from tests.support.synthetic_towers import BY_PRESENCE, BY_WORD, visual_of

CLOSE = {"rtol": 0, "atol": 1e-5}
VISUAL = [1.0] * 8


@pytest.fixture(scope="module")
def content_caller(tmp_path_factory):
    """Caller of an app whose bundle has an item encoder."""
    bundles = tmp_path_factory.mktemp("content")
    publish_handmade(bundles, with_content=True)
    with running(bundles) as caller:
        caller.wait_for("ready")
        yield caller


def embed(caller, **body):
    response = caller.request("POST", "/embed", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_embed_user_vector_scores_candidates(caller):
    users = [{"history": ["item-0", "item-2"]}, {"user_id": "user-1"}]
    body = embed(caller, users=users)
    assert body.keys() == {"bundle", "vectors"}
    for user, vector in zip(users, body["vectors"], strict=True):
        for candidate in caller.retrieve(**user, k=20).json()["candidates"]:
            item_vector = item_vectors()[int(candidate["item_id"][5:])]
            np.testing.assert_allclose(
                item_vector @ np.float32(vector), candidate["score"], **CLOSE
            )


def test_embed_many_users_equals_single_users(caller):
    users = [{"history": [f"item-{n}" for n in range(row + 1)]} for row in range(38)]
    together = embed(caller, users=users)["vectors"]
    for row, vector in enumerate(together):
        np.testing.assert_allclose(vector, mean_query(item_vectors(), range(row + 1)), **CLOSE)
        (alone,) = embed(caller, users=[users[row]])["vectors"]
        np.testing.assert_allclose(vector, alone, **CLOSE)


def test_embed_user_without_history_returns_reason(caller):
    users = [
        {"user_id": "unknown-user"},
        {"history": ["item-0", "lost", 7]},
        {},
        {"history": ["lost"], "user_id": "user-0"},
    ]
    body = embed(caller, users=users)
    assert [vector is None for vector in body["vectors"]] == [True, False, True, True]
    assert body["fallbacks"] == ["unknown_user", None, "empty_history", "no_known_items"]
    assert body["unknown_items"] == [[], ["lost", "7"], [], ["lost"]]


def test_embed_catalogue_items_equals_bundle_vectors(content_caller):
    features = visual_of(item_vectors())
    body = embed(content_caller, items=[{"look": row.tolist(), "words": None} for row in features])
    assert body.keys() == {"bundle", "vectors"}
    np.testing.assert_allclose(body["vectors"], item_vectors(), **CLOSE)


def test_embed_item_with_missing_modality(content_caller):
    words = np.array([0, 2, -1], dtype=np.float32)
    items = [{"words": words.tolist()}, {"words": [0, 2, -1], "look": None}]
    items += [{"look": [0] * 8, "words": [0, 2, -1]}]
    expected = unit(words @ BY_WORD + BY_PRESENCE[1])
    for vector in embed(content_caller, items=items)["vectors"]:
        np.testing.assert_allclose(vector, expected, **CLOSE)
    both = embed(content_caller, items=[{"look": VISUAL, "words": words.tolist()}])["vectors"]
    whole = unit(np.float32(VISUAL) + words @ BY_WORD + BY_PRESENCE.sum(axis=0))
    np.testing.assert_allclose(both, [whole], **CLOSE)


def test_embed_item_without_features_returns_reason(content_caller):
    body = embed(content_caller, items=[{}, {"look": VISUAL}, {"look": None}, {"words": [0, 0, 0]}])
    assert [vector is None for vector in body["vectors"]] == [True, False, True, True]
    assert body["fallbacks"] == ["no_features", None, "no_features", "no_features"]


def test_embed_response_matches_schema(caller, content_caller):
    closed = TypeAdapter(with_config(ConfigDict(extra="forbid"))(EmbedResponse))
    bodies = [{"users": [{"user_id": "user-0"}, {"history": ["lost"]}]}, {"users": [{}]}]
    bodies += [{"items": [{"look": VISUAL}, {}]}, {"items": [{"words": [1, 2, 3]}]}]
    for body in bodies:
        response = content_caller.request("POST", "/embed", json=body)
        closed.validate_json(response.content, strict=True)
        assert response.headers["cache-control"] == "no-store"
        assert response.json()["bundle"] == content_caller.get("/bundle").json()["version"]


@pytest.mark.parametrize(
    ("body", "location", "received", "expected"),
    [
        ("{}", "the body", "{}", "exactly one of `users` and `items`"),
        ('{"users": [{}], "items": [{}]}', "the body", "users", "exactly one"),
        ('{"users": []}', "users", "[]", "at least 1"),
        ('{"items": []}', "items", "[]", "at least 1"),
        ('{"users": null}', "users", "null", "valid array"),
        (json.dumps({"users": [{}] * 257}), "users", "{}", "at most 256"),
        (json.dumps({"items": [{}] * 257}), "items", "{}", "at most 256"),
        ('{"users": [{}, {"history": [1.5]}]}', "users.1.history.0", "1.5", "an id is a string"),
        ('{"users": [{"k": 5}]}', "users.0.k", "5", "no such field"),
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
        ('{"items": [{"%s": [1]}]}' % ("x" * 5_000), f"items.0.{'x' * 72}...", "x...", "modality"),
        ('{"items": [{"look": [1, 2]}]}', "items.0.look", "2 numbers", "8 numbers, or null"),
        ('{"items": [{"words": []}]}', "items.0.words", "0 numbers", "3 numbers, or null"),
    ],
)
def test_invalid_embed_request_names_location(content_caller, body, location, received, expected):
    problem = assert_problem(content_caller.request("POST", "/embed", content=body), 422)
    error = problem["errors"][0]
    assert error["location"] == location
    assert received in error["received"]
    assert expected in error["expected"]


def test_invalid_embed_request_lists_first_20_errors(content_caller):
    problem = assert_problem(
        content_caller.request("POST", "/embed", json={"items": [{"sound": [1]}] * 100}), 422
    )
    assert len(problem["errors"]) == 20
    assert "and 99 more" in problem["detail"]


def test_embed_items_without_item_encoder_returns_409(caller):
    problem = assert_problem(caller.request("POST", "/embed", json={"items": [{}]}), 409)
    assert "its catalogue had no item features" in problem["detail"]
    assert caller.get("/bundle").json()["version"] in problem["detail"]


def test_embed_accepts_largest_numbers(content_caller):
    body = embed(content_caller, items=[{"look": [-1e15] * 8}, {"look": [1e15, *VISUAL[1:]]}])
    np.testing.assert_allclose(np.linalg.norm(body["vectors"], axis=1), 1, **CLOSE)


def test_embed_before_bundle_is_live_returns_503(empty):
    assert_problem(empty.request("POST", "/embed", json={"users": [{}]}), 503)

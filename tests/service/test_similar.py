from http.client import HTTPConnection
from urllib.parse import quote

import numpy as np
import pytest

from tests.support.http_caller import running
from tests.support.problems import assert_problem
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import ITEM_COUNT, item_vectors, publish_handmade

ALL = [f"item-{row}" for row in range(ITEM_COUNT)]
ODD_IDS = [
    "a/b", "a/b/similar", "/", "//", "similar", "a b", "a+b", "100%", "%41", "%2F", "?k=1", "#",
    "a:b", "a&b=c", "\u00e9t\u00e9", "e\u0301", "\u65e5\u672c\u8a9e", "\U0001f3ba",
    "line\nbreak", "end\n", "\t", "nul\0l", "\\", '"', "'", "<b>", ";", ",", "a..b", " ",
    "\u202e", "\ufeff", "\x7f", "x" * 512, "\u00fc" * 512,
]  # fmt: skip


def get_similar(caller, item_id, **query):
    return caller.get(f"/items/{quote(item_id, safe='')}/similar", params=query)


def similar_ids(caller, item_id, **query):
    response = get_similar(caller, item_id, **query)
    assert response.status_code == 200, response.text
    return [candidate["item_id"] for candidate in response.json()["candidates"]]


def test_similar_returns_nearest_items_without_itself(caller):
    scores = item_vectors() @ item_vectors()[4]
    best = [f"item-{row}" for row in np.argsort(-scores) if row != 4]
    response = get_similar(caller, "item-4", k=9)
    assert [candidate["item_id"] for candidate in response.json()["candidates"]] == best[:9]
    actual = [candidate["score"] for candidate in response.json()["candidates"]]
    np.testing.assert_allclose(actual, np.sort(scores)[::-1][1:10], rtol=0, atol=1e-5)
    assert response.json().keys() == {"bundle", "candidates"}
    assert response.headers["cache-control"] == "no-store"


def test_similar_returns_all_if_fewer_are_eligible(caller):
    assert sorted(similar_ids(caller, "item-7", k=1000)) == sorted(set(ALL) - {"item-7"})
    assert len(similar_ids(caller, "item-7")) == 39  # k defaults to 100


def test_similar_excludes_listed_items(caller):
    best = similar_ids(caller, "item-0", k=5)
    assert similar_ids(caller, "item-0", k=3, exclude=[best[0], best[2], "lost"])[:2] == [
        *(best[1], best[3])
    ]
    assert similar_ids(caller, "item-0", k=39, exclude=["item-0"]) == similar_ids(
        caller, "item-0", k=39
    )
    assert similar_ids(caller, "item-0", exclude=ALL) == []


def test_similar_applies_filter(caller):
    ids = similar_ids(caller, "item-0", filter=["tags:tag 3", "tags:tag 4", "parity:odd"])
    assert set(ids) == {f"item-{row}" for row in range(1, 40, 2) if row % 5 in (3, 4) and row != 3}
    assert "item-1" not in similar_ids(caller, "item-1", filter="parity:odd")
    body = get_similar(caller, "item-0", filter=["parity:odd", "parity:a:b"], k=1).json()
    assert body["unknown_values"] == {"parity": ["a:b"]}


def test_similar_by_unknown_attribute_lists_known_names(caller):
    problem = assert_problem(get_similar(caller, "item-0", filter="colour:red"), 422)
    (error,) = problem["errors"]
    assert (error["location"], error["received"]) == ("filter.colour", "colour")
    assert error["expected"].endswith("bundle: hundred, mood, odd, parity, tags")


def test_similar_includes_attributes(caller):
    body = get_similar(caller, "item-0", k=1, include="attributes", filter="parity:odd").json()
    (candidate,) = body["candidates"]
    assert candidate["attributes"] == {
        "title": f"thing {candidate['item_id'][5:]} \u2603",
        "odd": True,
    }


def test_similar_includes_clusters(caller):
    (candidate,) = get_similar(caller, "item-0", k=1, include="clusters").json()["candidates"]
    assert candidate["cluster"] is None  # this bundle has no map


def test_similar_to_unknown_item_returns_404(caller):
    problem = assert_problem(get_similar(caller, "lost/item"), 404)
    assert problem["type"] == "urn:esans:problem:unknown-item"
    assert "lost/item" in problem["detail"]


@pytest.mark.parametrize(
    ("query", "location", "received", "expected"),
    [
        ("k=0", "k", "0", "greater than or equal to 1"),
        ("k=1001", "k", "1001", "less than or equal to 1000"),
        ("k=five", "k", '"five"', "valid integer"),
        ("k=5.0", "k", '"5.0"', "valid integer"),
        ("k=", "k", '""', "valid integer"),
        ("k=%2B5", "k", '"+5"', "valid integer"),
        ("k=1_0", "k", '"1_0"', "valid integer"),
        ("k=%D9%A3", "k", "\u0663", "valid integer"),
        ("k=5&k=5", "k", '["5", "5"]', "valid integer"),
        ("exclude=", "exclude.0", '""', "at least 1 character"),
        (f"exclude=a&exclude={'x' * 513}", "exclude.1", "xxx", "at most 512 characters"),
        ("filter=red", "filter.0", '"red"', "match pattern"),
        ("filter=:red", "filter.0", '":red"', "match pattern"),
        ("include=everything", "include.0", '"everything"', "clusters"),
        ("limit=5", "limit", '"5"', "no such field"),
        ("item_id=item-1", "item_id (in the query)", '"item-1"', "no such field"),
    ],
)
def test_invalid_query_string_names_location(caller, query, location, received, expected):
    problem = assert_problem(caller.get(f"/items/item-0/similar?{query}"), 422)
    (error,) = problem["errors"]
    assert error["location"] == location
    assert received in error["received"]
    assert expected in error["expected"]
    assert problem["type"] == "urn:esans:problem:invalid-query"


def test_invalid_query_string_lists_all_errors(caller):
    problem = assert_problem(caller.get("/items/item-0/similar?k=0&limit=1&exclude="), 422)
    assert {error["location"] for error in problem["errors"]} == {"k", "limit", "exclude.0"}


def test_invalid_query_string_above_limit_reports_count(caller):
    query = "&".join(f"limit-{n}=1" for n in range(1_001))
    (error,) = assert_problem(caller.get(f"/items/item-0/similar?{query}"), 422)["errors"]
    assert (error["location"], error["received"]) == ("the request", "1001 errors")


def test_similar_rejects_empty_or_long_id(caller):
    assert assert_problem(caller.get("/items//similar"), 422)["errors"][0]["location"] == "item_id"
    assert assert_problem(get_similar(caller, "x" * 513), 422)["errors"][0]["location"] == "item_id"


def test_similar_accepts_any_characters_in_id(tmp_path):
    publish_handmade(tmp_path, ids=ODD_IDS)
    with start_service(tmp_path) as (client, _):
        while client.get("/readyz").status_code != 200:
            pass
        for item_id in ODD_IDS:
            path = f"{client.base_url}/items/{quote(item_id, safe='')}/similar"
            response = client.get(path, params={"k": 1000, "exclude": "?k=1"})
            assert response.status_code == 200, (item_id, response.text)
            returned = {candidate["item_id"] for candidate in response.json()["candidates"]}
            assert returned == set(ODD_IDS) - {item_id, "?k=1"}
        plain = client.get("/items/a/b/similar", params={"k": 1})  # an unescaped slash
        assert plain.status_code == 200
        connection = HTTPConnection(client.base_url.host, client.base_url.port)
        connection.request("GET", f"/items/similar/similar?exclude={'x' * 70_000}")
        assert connection.getresponse().status == 400  # by the server, before the app
        connection.close()
        text = client.get("/metrics").text
    assert 'route="/items/{item_id}/similar",status="200"' in text
    assert "unmatched" not in text


def test_similar_to_denied_item_excludes_denied_items(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path, admin_token="token") as caller:
        caller.wait_for("ready")
        headers, denied = {"Authorization": "Bearer token"}, {"items": ["item-4", "item-6"]}
        caller.request("PUT", "/admin/denylist", json=denied, headers=headers).raise_for_status()
        assert sorted(similar_ids(caller, "item-4")) == sorted(set(ALL) - {"item-4", "item-6"})
        assert sorted(similar_ids(caller, "item-5")) == sorted(
            set(ALL) - {*denied["items"], "item-5"}
        )


def test_metrics_count_similar_results(bundles_folder):
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        get_similar(caller, "item-0", k=40)
        get_similar(caller, "item-0", k=4)
        get_similar(caller, "lost")
        assert caller.metric("esans_candidates_returned_count") == 2
        assert caller.metric('esans_short_results_total{reason="eligible"}') == 1


def test_similar_before_bundle_is_live_returns_503(empty):
    assert_problem(get_similar(empty, "item-0"), 503)

from http.client import HTTPConnection
from urllib.parse import quote

import numpy as np
import pytest

from tests.service.test_main import start_service
from tests.service.test_problems import problem
from tests.support.http_caller import running
from tests.support.synthetic_bundle import ITEM_COUNT, item_vectors, publish_handmade

ALL = [f"item-{row}" for row in range(ITEM_COUNT)]
ODD_IDS = [
    "a/b", "a/b/similar", "/", "//", "similar", "a b", "a+b", "100%", "%41", "%2F", "?k=1", "#",
    "a:b", "a&b=c", "\u00e9t\u00e9", "e\u0301", "\u65e5\u672c\u8a9e", "\U0001f3ba",
    "line\nbreak", "end\n", "\t", "nul\0l", "\\", '"', "'", "<b>", ";", ",", "a..b", " ",
    "\u202e", "\ufeff", "\x7f", "x" * 512, "\u00fc" * 512,
]  # fmt: skip


def similar(caller, item_id, **query):
    return caller.get(f"/items/{quote(item_id, safe='')}/similar", params=query)


def found(caller, item_id, **query):
    answer = similar(caller, item_id, **query)
    assert answer.status_code == 200, answer.text
    return [one["item_id"] for one in answer.json()["candidates"]]


def test_the_nearest_items_come_without_the_item_itself(caller):
    scores = item_vectors() @ item_vectors()[4]
    best = [f"item-{row}" for row in np.argsort(-scores) if row != 4]
    answer = similar(caller, "item-4", k=9)
    assert [one["item_id"] for one in answer.json()["candidates"]] == best[:9]
    told = [one["score"] for one in answer.json()["candidates"]]
    np.testing.assert_allclose(told, np.sort(scores)[::-1][1:10], rtol=0, atol=1e-5)
    assert answer.json().keys() == {"bundle", "candidates"}
    assert answer.headers["cache-control"] == "no-store"


def test_where_fewer_are_eligible_all_of_them_come(caller):
    assert sorted(found(caller, "item-7", k=1000)) == sorted(set(ALL) - {"item-7"})
    assert len(found(caller, "item-7")) == 39  # k is 100 unless told


def test_what_is_excluded_does_not_come(caller):
    best = found(caller, "item-0", k=5)
    assert found(caller, "item-0", k=3, exclude=[best[0], best[2], "lost"])[:2] == [
        *(best[1], best[3]),
    ]
    assert found(caller, "item-0", k=39, exclude=["item-0"]) == found(caller, "item-0", k=39)
    assert found(caller, "item-0", exclude=ALL) == []


def test_only_what_the_filter_keeps_comes(caller):
    kept = found(caller, "item-0", filter=["tags:tag 3", "tags:tag 4", "parity:odd"])
    assert set(kept) == {f"item-{row}" for row in range(1, 40, 2) if row % 5 in (3, 4) and row != 3}
    assert "item-1" not in found(caller, "item-1", filter="parity:odd")
    told = similar(caller, "item-0", filter=["parity:odd", "parity:a:b"], k=1).json()
    assert told["unknown_values"] == {"parity": ["a:b"]}


def test_an_attribute_that_is_not_known_is_refused_with_the_known_ones(caller):
    told = problem(similar(caller, "item-0", filter="colour:red"), 422)
    (fault,) = told["errors"]
    assert (fault["location"], fault["received"]) == ("filter.colour", "colour")
    assert fault["expected"].endswith("by hundred, mood, odd, parity, tags")


def test_attributes_are_told_where_asked_for(caller):
    told = similar(caller, "item-0", k=1, include="attributes", filter="parity:odd").json()
    (one,) = told["candidates"]
    assert one["attributes"] == {"title": f"thing {one['item_id'][5:]} \u2603", "odd": True}


def test_clusters_are_told_where_asked_for(caller):
    (one,) = similar(caller, "item-0", k=1, include="clusters").json()["candidates"]
    assert one["cluster"] is None  # this bundle has no map


def test_an_item_that_the_bundle_lacks_is_not_found(caller):
    told = problem(similar(caller, "lost/item"), 404)
    assert told["type"] == "urn:esans:problem:unknown-item"
    assert "lost/item" in told["detail"]


@pytest.mark.parametrize(
    ("query", "place", "given", "expected"),
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
        ("limit=5", "limit", '"5"', "no such key here"),
        ("item_id=item-1", "item_id (in the query)", '"item-1"', "no such key here"),
    ],
)
def test_a_query_that_breaks_a_rule_is_refused_by_place(caller, query, place, given, expected):
    told = problem(caller.get(f"/items/item-0/similar?{query}"), 422)
    (fault,) = told["errors"]
    assert fault["location"] == place
    assert given in fault["received"]
    assert expected in fault["expected"]
    assert told["type"] == "urn:esans:problem:invalid-query"


def test_all_faults_of_a_query_are_told_at_once(caller):
    told = problem(caller.get("/items/item-0/similar?k=0&limit=1&exclude="), 422)
    assert {one["location"] for one in told["errors"]} == {"k", "limit", "exclude.0"}


def test_of_more_faults_of_a_query_than_are_read_their_number_is_told(caller):
    query = "&".join(f"limit-{n}=1" for n in range(1_001))
    (fault,) = problem(caller.get(f"/items/item-0/similar?{query}"), 422)["errors"]
    assert (fault["location"], fault["received"]) == ("the question", "1001 faults")


def test_an_empty_or_endless_id_is_no_id(caller):
    assert problem(caller.get("/items//similar"), 422)["errors"][0]["location"] == "item_id"
    assert problem(similar(caller, "x" * 513), 422)["errors"][0]["location"] == "item_id"


def test_an_id_may_hold_anything_that_text_can(tmp_path):
    publish_handmade(tmp_path, ids=ODD_IDS)
    with start_service(tmp_path) as (client, _):
        while client.get("/readyz").status_code != 200:
            pass
        for one in ODD_IDS:
            path = f"{client.base_url}/items/{quote(one, safe='')}/similar"
            answer = client.get(path, params={"k": 1000, "exclude": "?k=1"})
            assert answer.status_code == 200, (one, answer.text)
            came = {each["item_id"] for each in answer.json()["candidates"]}
            assert came == set(ODD_IDS) - {one, "?k=1"}
        plain = client.get("/items/a/b/similar", params={"k": 1})  # a slash as it is
        assert plain.status_code == 200
        asking = HTTPConnection(client.base_url.host, client.base_url.port)
        asking.request("GET", f"/items/similar/similar?exclude={'x' * 70_000}")
        assert asking.getresponse().status == 400  # said by the server, before the app
        asking.close()
        text = client.get("/metrics").text
    assert 'route="/items/{item_id}/similar",status="200"' in text
    assert "unmatched" not in text


def test_a_denied_item_may_be_asked_about_but_never_comes(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path, admin_token="token") as caller:
        caller.wait_for("ready")
        headers, denied = {"Authorization": "Bearer token"}, {"items": ["item-4", "item-6"]}
        caller.ask("PUT", "/admin/denylist", json=denied, headers=headers).raise_for_status()
        assert sorted(found(caller, "item-4")) == sorted(set(ALL) - {"item-4", "item-6"})
        assert sorted(found(caller, "item-5")) == sorted(set(ALL) - {*denied["items"], "item-5"})


def test_answers_are_counted_as_those_of_retrieve(bundles_folder):
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        similar(caller, "item-0", k=40)
        similar(caller, "item-0", k=4)
        similar(caller, "lost")
        assert caller.metric("esans_candidates_returned_count") == 2
        assert caller.metric('esans_short_results_total{reason="eligible"}') == 1


def test_before_a_bundle_is_live_the_question_may_come_again_soon(empty):
    problem(similar(empty, "item-0"), 503)

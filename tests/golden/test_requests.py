import copy
from itertools import groupby

import pytest

from tests.golden.comparison import differences, normalised
from tests.golden.record import read_requests
from tests.golden.service import serving

NUM_SHOWN = 10


@pytest.fixture(scope="module")
def recorded():
    return read_requests()


def test_service_responses_equal_the_golden_file(recorded, tmp_path):
    failures = []
    for world, lines in groupby(recorded, lambda line: line["world"]):
        with serving(world, tmp_path) as send:
            for number, line in enumerate(lines):
                actual = normalised(send(line["request"]))
                path = f"{world} {number} {line['request']!r:.200}"
                failures += differences(actual, line["response"], path)
    assert not failures, "\n".join([f"{len(failures)} differences", *failures[:NUM_SHOWN]])


def test_golden_requests_cover_all_routes_and_statuses(recorded):
    assert len(recorded) == 500
    paths = {line["request"]["path"].partition("?")[0] for line in recorded}
    assert {"/retrieve", "/retrieve/batch", "/embed", "/clusters", "/negatives"} <= paths
    assert {"/bundle", "/livez", "/readyz", "/health", "/admin/denylist"} <= paths
    statuses = [line["response"]["status"] for line in recorded]
    assert {200, 401, 404, 405, 409, 413, 422, 503} <= set(statuses)
    assert statuses.count(200) > 250


def has_scores(response):
    body = response["body"]
    candidates = body.get("candidates", []) if isinstance(body, dict) else []
    return len(candidates) > 2 and candidates[0]["score"] is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["candidates"][0].update(score=body["candidates"][0]["score"] + 1e-4),
        lambda body: body["candidates"][1].update(item_id="item-9999"),
        lambda body: body["candidates"].pop(),
        lambda body: body["candidates"].reverse(),
        lambda body: body.update(fallback="no_history"),
    ],
)
def test_differences_detects_a_changed_response(recorded, change):
    response = next(line["response"] for line in recorded if has_scores(line["response"]))
    changed = copy.deepcopy(response)
    assert differences(changed, response) == []
    change(changed["body"])
    assert differences(changed, response) != []

import subprocess
import sys

import pytest

from tests.support.cluster_maps import local_maps
from tests.support.http_caller import running
from tests.support.service_process import ROOT
from tests.support.synthetic_bundle import handmade_map, publish_handmade

CALLS = [
    ("post", "/retrieve", {"200", "408", "413", "422", "500", "503"}),
    ("post", "/retrieve/batch", {"200", "408", "413", "422", "500", "503"}),
    ("get", "/items/{item_id}/similar", {"200", "400", "404", "422", "500", "503"}),
    ("post", "/embed", {"200", "409", "408", "413", "422", "500", "503"}),
    ("get", "/bundle", {"200", "304", "500", "503"}),
    ("get", "/readyz", {"200", "500", "503"}),
    ("get", "/health", {"200", "500", "503"}),
    ("get", "/livez", {"200", "500"}),
    ("get", "/metrics", {"200"}),
    ("get", "/clusters", {"200", "404", "500", "503"}),
    ("post", "/negatives", {"200", "404", "408", "413", "422", "500", "503"}),
]
ADMIN = ("put", "/admin/clusters/current")


@pytest.fixture(scope="module")
def described(caller):
    return caller.get("/openapi.json").json()


@pytest.fixture(scope="module")
def described_to_admins(bundles_folder):
    with running(bundles_folder, admin_token="secret") as caller:
        return caller.get("/openapi.json").json()


def references(node):
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [deeper for value in node.values() for deeper in references(value)]


def resolved(described, reference):
    node = described
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


def test_every_reference_leads_to_a_schema(described):
    found = references(described)
    assert len(found) > 10
    for reference in found:
        assert resolved(described, reference)["type"] in ("object", "string")


def test_it_is_openapi_3_1_with_a_text_for_every_answer(described):
    assert described["openapi"].startswith("3.1")
    for path in described["paths"].values():
        for call in path.values():
            assert call["summary"]
            assert all(answer["description"] for answer in call["responses"].values())
    names = [c["operationId"] for p in described["paths"].values() for c in p.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("method", "path", "statuses"), CALLS)
def test_every_call_tells_all_its_answers(described, method, path, statuses):
    answers = described["paths"][path][method]["responses"]
    assert set(answers) == statuses
    for status in statuses & {"409", "408", "413", "422", "500"}:
        assert references(answers[status]["content"]["application/problem+json"]) == [
            "#/components/schemas/Problem"
        ]


def test_no_call_is_left_out(described):
    assert set(described["paths"]) == {path for _, path, _ in CALLS}


def test_the_question_is_described_to_the_last_bound(described):
    content = described["paths"]["/retrieve"]["post"]["requestBody"]["content"]
    question = resolved(described, references(content)[0])
    assert question["additionalProperties"] is False
    assert set(question["properties"]) == {
        *("user_id", "history", "k", "exclude", "exclude_seen", "filter", "include"),
    }
    k = question["properties"]["k"]
    assert (k["minimum"], k["maximum"], k["default"]) == (1, 1000, 100)
    assert question["properties"]["exclude"]["maxItems"] == 10_000
    kinds = {one["type"] for one in question["properties"]["exclude"]["items"]["anyOf"]}
    assert kinds == {"string", "integer"}


def test_negatives_are_described_to_the_last_bound(described):
    content = described["paths"]["/negatives"]["post"]["requestBody"]["content"]
    question = resolved(described, references(content)[0])
    assert sorted(question["required"]) == ["easy", "hard", "positives"]
    assert question["properties"]["positives"]["maxItems"] == 10_000
    assert question["properties"]["easy"]["maximum"] == 1_000


def test_parameters_are_described_to_the_last_bound(described):
    told = described["paths"]["/items/{item_id}/similar"]["get"]["parameters"]
    by_name = {one["name"]: one for one in told}
    assert [*by_name] == ["item_id", "k", "exclude", "filter", "include"]
    assert all(one["description"] for one in told)
    assert [one["in"] for one in told] == ["path", *["query"] * 4]
    assert [one["required"] for one in told] == [True, *[False] * 4]
    k = by_name["k"]["schema"]
    assert (k["minimum"], k["maximum"], k["default"]) == (1, 1000, 100)
    assert by_name["exclude"]["schema"]["maxItems"] == 1_000
    assert by_name["item_id"]["schema"]["maxLength"] == 512


def test_what_to_embed_is_described_to_the_last_bound(described):
    content = described["paths"]["/embed"]["post"]["requestBody"]["content"]
    question = resolved(described, references(content)[0])
    assert question["oneOf"] == [{"required": ["users"]}, {"required": ["items"]}]
    for part in ("users", "items"):
        bounds = question["properties"][part]
        assert (bounds["minItems"], bounds["maxItems"]) == (1, 256)


def test_the_admin_call_is_described_where_there_is_one(described, described_to_admins):
    method, path = ADMIN
    call = described_to_admins["paths"][path][method]
    assert set(call["responses"]) == {"200", "401", "404", "408", "413", "422", "500", "503"}
    (scheme,) = call["security"][0]
    assert described_to_admins["components"]["securitySchemes"][scheme]["scheme"] == "bearer"
    assert path not in described["paths"]


def offered(described):
    """Each call as the page offers to send it."""
    for path, calls in described["paths"].items():
        for method, call in calls.items():
            filled, body = path, None
            for one in call.get("parameters", []):
                example = next(iter(one.get("examples", {}).values()), {}).get("value")
                filled = filled.replace(f"{{{one['name']}}}", str(example))
            if "requestBody" in call:
                content = call["requestBody"]["content"]["application/json"]["schema"]
                body = resolved(described, content["$ref"])["examples"][0]
            yield method.upper(), filled, body


def test_what_the_page_offers_to_send_is_answered(tmp_path):
    ids = [f"sku-{row:05}" for row in range(50)]
    store = local_maps(tmp_path / "clusters")
    for turn in (0, 1):
        publish_handmade(tmp_path, ids=ids, seed=turn)
        store.publish(handmade_map(ids=ids, shift=turn))
    with running(tmp_path, admin_token="secret") as caller:
        caller.wait_for_clusters("following", handmade_map(ids=ids, shift=1).version)
        headers = {"Authorization": "Bearer secret"}
        calls = [*offered(caller.get("/openapi.json").json())]
        assert len(calls) > len(CALLS)
        for method, path, body in calls:
            answer = caller.ask(method, path, json=body, headers=headers)
            assert answer.status_code == 200, (path, answer.text)


def test_the_docs_open(caller):
    assert caller.get("/docs").status_code == 200


def test_the_description_in_the_repository_is_current():
    command = [sys.executable, "-m", "service.describe"]  # as `make openapi` does
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    kept = (ROOT / "docs" / "openapi.json").read_text()
    assert kept == done.stdout, "run `make openapi` and commit docs/openapi.json"

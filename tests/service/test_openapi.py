import json
import re
import subprocess
import sys

import pytest

from service.schemas.shared import EXAMPLE_ITEMS
from tests.support.cluster_maps import local_maps
from tests.support.http_caller import running
from tests.support.service_process import ROOT
from tests.support.synthetic_bundle import handmade_map, publish_handmade

ENDPOINTS = [
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
ADMIN_ENDPOINT = ("put", "/admin/clusters/current")


@pytest.fixture(scope="module")
def schema(caller):
    return caller.get("/openapi.json").json()


def test_routes_are_built_before_the_first_request(caller):
    built = {getattr(route, "path_format", None) for route in caller.app.routes}
    assert {path for _, path, _ in ENDPOINTS} <= built


@pytest.fixture(scope="module")
def admin_schema(bundles_folder):
    with running(bundles_folder, admin_token="secret") as caller:
        return caller.get("/openapi.json").json()


def list_references(node):
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [nested for value in node.values() for nested in list_references(value)]


def resolve(schema, reference):
    node = schema
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


def test_openapi_references_resolve(schema):
    references = list_references(schema)
    assert len(references) > 10
    for reference in references:
        assert resolve(schema, reference)["type"] in ("object", "string")


def test_openapi_describes_every_endpoint(admin_schema):
    schema = admin_schema
    assert schema["openapi"].startswith("3.1")
    for path in schema["paths"].values():
        for call in path.values():
            assert call["summary"]
            assert len(call["description"]) > len(call["summary"])
            assert all(response["description"] for response in call["responses"].values())
    names = [c["operationId"] for p in schema["paths"].values() for c in p.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("method", "path", "statuses"), ENDPOINTS)
def test_openapi_lists_statuses_of_each_endpoint(schema, method, path, statuses):
    responses = schema["paths"][path][method]["responses"]
    assert set(responses) == statuses
    for status in statuses & {"409", "408", "413", "422", "500"}:
        assert list_references(responses[status]["content"]["application/problem+json"]) == [
            "#/components/schemas/Problem"
        ]


def test_openapi_lists_every_endpoint(schema):
    assert set(schema["paths"]) == {path for _, path, _ in ENDPOINTS}


def test_openapi_states_bounds_of_retrieve(schema):
    content = schema["paths"]["/retrieve"]["post"]["requestBody"]["content"]
    query = resolve(schema, list_references(content)[0])
    assert query["additionalProperties"] is False
    assert set(query["properties"]) == {
        *("user_id", "history", "k", "exclude", "exclude_seen", "filter", "include")
    }
    k = query["properties"]["k"]
    assert (k["minimum"], k["maximum"], k["default"]) == (1, 1000, 100)
    assert query["properties"]["exclude"]["maxItems"] == 10_000
    kinds = {option["type"] for option in query["properties"]["exclude"]["items"]["anyOf"]}
    assert kinds == {"string", "integer"}


def test_openapi_states_bounds_of_negatives(schema):
    content = schema["paths"]["/negatives"]["post"]["requestBody"]["content"]
    query = resolve(schema, list_references(content)[0])
    assert query["required"] == ["positives"]
    assert query["properties"]["hard"]["default"] == 10
    assert query["properties"]["positives"]["maxItems"] == 10_000
    assert query["properties"]["easy"]["maximum"] == 1_000


def test_openapi_states_bounds_of_similar(schema):
    parameters = schema["paths"]["/items/{item_id}/similar"]["get"]["parameters"]
    by_name = {parameter["name"]: parameter for parameter in parameters}
    assert [*by_name] == ["item_id", "k", "exclude", "filter", "include"]
    assert all(parameter["description"] for parameter in parameters)
    assert [parameter["in"] for parameter in parameters] == ["path", *["query"] * 4]
    assert [parameter["required"] for parameter in parameters] == [True, *[False] * 4]
    k = by_name["k"]["schema"]
    assert (k["minimum"], k["maximum"], k["default"]) == (1, 1000, 100)
    assert by_name["exclude"]["schema"]["maxItems"] == 1_000
    assert by_name["item_id"]["schema"]["maxLength"] == 512


def test_openapi_states_bounds_of_embed(schema):
    content = schema["paths"]["/embed"]["post"]["requestBody"]["content"]
    query = resolve(schema, list_references(content)[0])
    assert query["oneOf"] == [{"required": ["users"]}, {"required": ["items"]}]
    for part in ("users", "items"):
        bounds = query["properties"][part]
        assert (bounds["minItems"], bounds["maxItems"]) == (1, 256)


def test_openapi_describes_admin_only_with_token(schema, admin_schema):
    method, path = ADMIN_ENDPOINT
    call = admin_schema["paths"][path][method]
    assert set(call["responses"]) == {"200", "401", "404", "408", "413", "422", "500", "503"}
    (scheme,) = call["security"][0]
    assert admin_schema["components"]["securitySchemes"][scheme]["scheme"] == "bearer"
    assert path not in schema["paths"]


def list_examples(schema):
    """Yield method, path and body of each example."""
    for path, calls in schema["paths"].items():
        for method, call in calls.items():
            filled_path, body = path, None
            for parameter in call.get("parameters", []):
                example = next(iter(parameter.get("examples", {}).values()), {}).get("value")
                filled_path = filled_path.replace(f"{{{parameter['name']}}}", str(example))
            if "requestBody" in call:
                content = call["requestBody"]["content"]["application/json"]["schema"]
                body = resolve(schema, content["$ref"])["examples"][0]
            yield method.upper(), filled_path, body


def test_openapi_examples_succeed(tmp_path):
    ids = [f"sku-{row:05}" for row in range(50)]
    store = local_maps(tmp_path / "clusters")
    for shift in (0, 1):
        publish_handmade(tmp_path, ids=ids, seed=shift)
        store.publish(handmade_map(ids=ids, shift=shift))
    with running(tmp_path, admin_token="secret") as caller:
        caller.wait_for_clusters("following", handmade_map(ids=ids, shift=1).version)
        headers = {"Authorization": "Bearer secret"}
        calls = [*list_examples(caller.get("/openapi.json").json())]
        assert len(calls) > len(ENDPOINTS)
        for method, path, body in calls:
            response = caller.request(method, path, json=body, headers=headers)
            assert response.status_code == 200, (path, response.text)


def test_openapi_examples_have_ids_of_live_bundle(tmp_path):
    with running(tmp_path) as caller:
        generic = json.dumps([*list_examples(caller.get("/openapi.json").json())])
        ids = ['say "hi"', "sku-00042", *(f"item-{row}" for row in range(38))]
        publish_handmade(tmp_path, ids=ids)
        caller.wait_for("ready")
        filled = json.dumps([*list_examples(caller.get("/openapi.json").json())])
    assert set(re.findall(r"sku-\d+", generic)) == set(EXAMPLE_ITEMS)
    assert set(re.findall(r"sku-\d+", filled)) == {"sku-00042"}
    assert json.loads(filled)[0][2]["history"] == ['say "hi"', "sku-00042"]


def test_root_redirects_to_docs(caller):
    response = caller.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")


def test_docs_page_returns_200(caller):
    assert caller.get("/docs").status_code == 200


def test_openapi_file_is_current():
    command = [sys.executable, "-m", "service.describe"]  # as `make openapi` does
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    kept = (ROOT / "docs" / "openapi.json").read_text()
    assert kept == done.stdout, "run `make openapi` and commit docs/openapi.json"

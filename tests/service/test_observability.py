import json
import re
import shutil
import subprocess

import pytest
import yaml

from tests.support.dockerfile import ROOT
from tests.support.http_caller import running
from tests.support.redis_server import RedisServer
from tests.support.synthetic_bundle import handmade_map, publish_handmade

FOLDER = ROOT / "docs" / "observability"
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "esans.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SHOWN = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
WATCHED = [rule["expr"] for rule in RULES]
OF_PROMETHEUS = {"up"}  # which makes it itself
METRIC = re.compile(r"\b[a-z]+_[a-z0-9_]+\b|\bup\b")
FUNCTIONS = {"histogram_quantile"}


def names_in(expression):
    """The metrics of an expression: what is left without labels, strings and functions."""
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\b(by|without) \([^)]*\)|\[[^]]*\]", " ", expression)
    return set(METRIC.findall(bare)) - FUNCTIONS


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """The text of /metrics of a service that has answered and follows a Redis."""
    bundles = tmp_path_factory.mktemp("bundles")
    publish_handmade(bundles, count=200, clusters=handmade_map(200))
    redis = RedisServer().start()
    try:
        with running(bundles, redis_url=redis.url) as caller:
            caller.wait_for("ready")
            caller.retrieve(k=3)
            caller.wait_for_clusters("empty")
            yield caller.get("/metrics").text
    finally:
        redis.stop()


@pytest.mark.parametrize("expression", SHOWN + WATCHED)
def test_every_metric_that_is_shown_or_watched_is_told_by_a_running_service(metrics, expression):
    told = set(re.findall(r"^(\w+)[{ ]", metrics, re.M)) | OF_PROMETHEUS
    names = names_in(expression)
    assert names
    assert names <= told


def test_every_metric_has_its_row_in_the_operations_manual(metrics):
    families = set(re.findall(r"^# TYPE (\w+) ", metrics, re.M))
    rows = "\n".join(line.split("|")[1] for line in OPERATIONS.splitlines() if "|" in line)
    told = set(re.findall(r"`(\w+)", rows))
    unexplained = {
        name
        for name in families
        if name not in told and not name.startswith(("process_", "python_"))
        and not name.endswith("_created")
    }  # fmt: skip
    assert unexplained == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_is_wrong_and_has_its_section(rule):
    assert rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    place, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert place == "docs/operations.md"
    assert anchor == rule["alert"].lower()
    assert f"\n#### {rule['alert']}\n" in OPERATIONS


def test_every_alert_of_the_manual_is_a_rule():
    assert re.findall(r"^#### (\w+)$", OPERATIONS, re.M) == [rule["alert"] for rule in RULES]


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: apt-get install prometheus)",
)
@pytest.mark.parametrize("what", [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_prometheus_itself_can_read_the_files(what):
    kind, file = what
    command = ["promtool", "check", kind, str(FOLDER / file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: apt-get install prometheus)",
)
def test_prometheus_can_parse_every_expression_of_the_dashboard(tmp_path):
    ready = [
        expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
        for expression in SHOWN
    ]
    rules = [{"record": f"shown:{place}", "expr": one} for place, one in enumerate(ready)]
    file = tmp_path / "shown.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_panels_do_not_overlap_and_ask_the_source_that_is_provisioned():
    source = yaml.safe_load(
        (FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    taken = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells

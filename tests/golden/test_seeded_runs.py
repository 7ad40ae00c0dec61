import json
from functools import cache

import pytest

from tests.golden.comparison import differences
from tests.golden.record import RUNS
from tests.golden.runs import SAMPLERS, platform_of, results_of, train

RUN = ["default", "esans", pytest.param("mixed", marks=pytest.mark.slow)]
COARSE = 0.05  # rounding differs between processors, and training amplifies it


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RUNS.read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return cache(lambda sampler: results_of(train(sampler, folder)))


def leaves(node, path=""):
    """Every number with its path."""
    if not isinstance(node, dict | list):
        return [(path, node)]
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    return [leaf for key, value in pairs for leaf in leaves(value, f"{path}.{key}")]


@pytest.mark.parametrize("sampler", RUN)
def test_seeded_run_ends_with_the_recorded_weights(sampler, recorded, results):
    here = platform_of()
    records = {str(record["platform"]): record["runs"] for record in recorded}
    if str(here) not in records:
        pytest.skip(f"the digests are of {', '.join(records)}, this is {here}")
    expected = records[str(here)][sampler]
    assert results(sampler)["digests"] == expected["digests"]
    assert differences(results(sampler), expected) == []


@pytest.mark.parametrize("sampler", RUN)
def test_seeded_run_metrics_are_close_on_any_machine(sampler, recorded, results):
    for part in ("metrics", "statistics"):
        expected = dict(leaves(recorded[0]["runs"][sampler][part]))
        for path, value in leaves(results(sampler)[part]):
            assert value == pytest.approx(expected.pop(path), abs=COARSE), path
        assert not expected


def test_samplers_end_with_different_weights(recorded):
    for record in recorded:
        towers = {run["digests"]["towers"] for run in record["runs"].values()}
        assert len(towers) == len(SAMPLERS)

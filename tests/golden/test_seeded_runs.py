import json

import pytest

from tests.golden.comparison import differences
from tests.golden.record import RUNS
from tests.golden.runs import SAMPLERS, platform_of, results_of, train

COARSE = 0.05  # another processor rounds differently, and training carries that on


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RUNS.read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {sampler: results_of(train(sampler, folder)) for sampler in SAMPLERS}


def leaves(node, place=""):
    """Every number with the way to it."""
    if not isinstance(node, dict | list):
        return [(place, node)]
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    return [leaf for key, value in pairs for leaf in leaves(value, f"{place}.{key}")]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seeded_run_ends_with_the_recorded_weights(sampler, recorded, found):
    if (here := platform_of()) != recorded["platform"]:
        pytest.skip(f"the digests are of {recorded['platform']}, this is {here}")
    expected = recorded["runs"][sampler]
    assert found[sampler]["digests"] == expected["digests"]
    assert differences(found[sampler], expected) == []


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seeded_run_measures_about_as_recorded_on_any_machine(sampler, recorded, found):
    for part in ("metrics", "statistics"):
        expected = dict(leaves(recorded["runs"][sampler][part]))
        for place, value in leaves(found[sampler][part]):
            assert value == pytest.approx(expected.pop(place), abs=COARSE), place
        assert not expected


def test_samplers_end_with_different_weights(recorded):
    towers = {run["digests"]["towers"] for run in recorded["runs"].values()}
    assert len(towers) == len(SAMPLERS)

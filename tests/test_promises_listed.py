import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
LINE = re.compile(r"^\| (?P<guarantee>[^|]+) \| (?P<proofs>[^|]+) \|$")


def names_in(path):
    """The names of a module's test functions, without importing it."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {one.name for one in body if isinstance(one, kinds) and one.name.startswith("test_")}


@pytest.fixture(scope="module")
def lines():
    """The guarantees with the tests that each one names."""
    text = (TESTS / "PROMISES.md").read_text(encoding="utf-8")
    rows = [row for row in map(LINE.match, text.splitlines()) if row]
    pairs = [(row["guarantee"], NAMED.findall(row["proofs"])) for row in rows]
    return [pair for pair in pairs if pair[0] != "Guarantee"]


@pytest.fixture(scope="module")
def modules():
    """Path from the repository's root -> names of the tests in it."""
    found = TESTS.rglob("test_*.py")
    return {f"tests/{path.relative_to(TESTS).as_posix()}": names_in(path) for path in found}


def test_every_test_that_a_guarantee_names_exists(lines, modules):
    named = [one for _, proofs in lines for one in proofs]
    assert len(lines) > 250
    assert [one for one in named if one[1] not in modules.get(one[0], ())] == []
    assert len(set(named)) == len(named)


def test_every_guarantee_names_a_test_and_every_module_has_a_guarantee(lines, modules):
    assert [guarantee for guarantee, proofs in lines if not proofs] == []
    assert set(modules) - {module for _, proofs in lines for module, _ in proofs} == set()

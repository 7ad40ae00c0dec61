import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
LINE = re.compile(r"^\| (?P<guarantee>[^|]+) \| (?P<proofs>[^|]+) \|$")


def names_in(path):
    """Names of the test functions of a module, without importing it."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in body if isinstance(node, kinds)}
    return {name for name in names if name.startswith("test_")}


@pytest.fixture(scope="module")
def lines():
    """Guarantees with the tests that each one lists."""
    text = (TESTS / "PROMISES.md").read_text(encoding="utf-8")
    rows = [row for row in map(LINE.match, text.splitlines()) if row]
    pairs = [(row["guarantee"], NAMED.findall(row["proofs"])) for row in rows]
    return [pair for pair in pairs if pair[0] != "Guarantee"]


@pytest.fixture(scope="module")
def modules():
    """Path from the repository root -> names of its tests."""
    paths = TESTS.rglob("test_*.py")
    return {f"tests/{path.relative_to(TESTS).as_posix()}": names_in(path) for path in paths}


def test_every_listed_test_exists_once(lines, modules):
    tests = [proof for _, proofs in lines for proof in proofs]
    assert len(lines) > 250
    assert [test for test in tests if test[1] not in modules.get(test[0], ())] == []
    assert len(set(tests)) == len(tests)


def test_every_guarantee_and_module_is_listed(lines, modules):
    assert [guarantee for guarantee, proofs in lines if not proofs] == []
    assert set(modules) - {module for _, proofs in lines for module, _ in proofs} == set()

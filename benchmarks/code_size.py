"""`python -m benchmarks.code_size`: modules and code lines of each package.

A code line is one on which a statement or an expression starts or ends; docstrings, comments,
blank lines and what stands between do not count.
"""

import argparse
import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tabulate import tabulate

PACKAGES = (Path("index"), Path("service"), Path("trainer"), Path("benchmarks/compare"))
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.code_size", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folders", nargs="*", type=Path, default=PACKAGES, metavar="FOLDER")
    rows = []
    for folder in parser.parse_args().folders:
        counts = [count_code_lines(path.read_text()) for path in folder.rglob("*.py")]
        rows.append([str(folder), len(counts), sum(counts)])
    rows.append(["total", sum(row[1] for row in rows), sum(row[2] for row in rows)])
    print(tabulate(rows, ["package", "modules", "code lines"]))


def count_code_lines(source: str) -> int:
    """Count the code lines of one module."""
    tree = ast.parse(source)
    lines = {
        line
        for node in ast.walk(tree)
        if isinstance(node, (ast.stmt, ast.expr))
        for line in (node.lineno, node.end_lineno)
    }
    return len(lines - set(docstring_lines(tree)))


def docstring_lines(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that docstrings take."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            yield from range(first.lineno, (first.end_lineno or first.lineno) + 1)
        if isinstance(node, ast.ClassDef):
            for before, after in pairwise(node.body):
                if isinstance(before, ast.AnnAssign) and is_text(after):  # of an attribute
                    yield from range(after.lineno, (after.end_lineno or after.lineno) + 1)


def is_text(node: ast.stmt) -> bool:
    """Return whether a statement is a string and nothing else."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


if __name__ == "__main__":
    main()

"""The report of a comparison."""

from pathlib import Path


def report_of_comparison(folder: Path) -> str:
    raise NotImplementedError

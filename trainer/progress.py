"""Progress bars on a terminal, and a plain line now and then elsewhere."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

INTERVAL_S = 0.5  # between two updates on a terminal
LINE_INTERVAL_S = 10  # between two lines in a log
LINE = "{l_bar}{r_bar}"  # without the bar itself


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":  # noqa: ANN401  # tqdm's
    """Open a tqdm bar; if stderr is no terminal, it prints lines without control characters."""
    if sys.stderr.isatty():
        return tqdm(iterable, mininterval=INTERVAL_S, **options)
    interval = {"mininterval": LINE_INTERVAL_S, "maxinterval": LINE_INTERVAL_S}
    return tqdm(iterable, **{**options, **interval, "leave": True}, file=_Lines(), bar_format=LINE)


class _Lines:
    """File that turns the updates of a bar into lines of stderr."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and "<?" not in line:  # the first update has no rate yet
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()

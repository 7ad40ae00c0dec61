"""Run the cells that are not done, one process per core; every finished one is kept at once."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from index.errors import EsansError, TrainingError
from trainer.comparison.cell import Cell, run_cell
from trainer.comparison.store import Store

Faults = dict[str, str]


def run_missing(
    cells: list[Cell], store: Store, workers: int, is_time_left: Callable[[], bool]
) -> Faults:
    """Run every cell without a row; return what went wrong, cell -> reason.

    is_time_left  asked before each start; a cell that has begun is let finish

    A cell that fails is told and passed over; it is tried again the next time.
    """
    distinct = {cell.digest: cell for cell in cells}
    missing = [cell for cell in distinct.values() if not store.has(cell)]
    waiting = (cell for cell in missing if is_time_left())
    done_count = len(distinct) - len(missing)
    faults: Faults = {}
    if not missing:
        return faults
    with tqdm(total=len(distinct), initial=done_count, desc="cells", unit=" cells") as bar:
        finished = _one_by_one if workers == 1 else _side_by_side
        for cell, fault in finished(waiting, store, min(workers, len(missing))):
            bar.update()
            bar.set_postfix_str(str(cell))
            if fault:
                faults[str(cell)] = fault
                tqdm.write(f"{cell}: {fault}")
    return faults


def run_and_keep(cell: Cell, store: Store) -> str:
    """Run a cell and keep its row; return what went wrong, "" if nothing."""
    try:
        with _silence():
            figures, recalls = run_cell(cell)
    except EsansError as error:
        return str(error)
    store.save(cell, figures, recalls, datetime.now(UTC))
    return ""


def until(hours: float | None) -> Callable[[], bool]:
    """Return a clock that tells whether so many hours have not yet passed; None is for ever."""
    end = float("inf") if hours is None else time.monotonic() + 3_600 * hours
    return lambda: time.monotonic() < end


def _one_by_one(
    cells: Iterator[Cell], store: Store, workers: int
) -> Iterator[tuple[Cell, str]]:
    for cell in cells:
        yield cell, run_and_keep(cell, store)


def _side_by_side(
    cells: Iterator[Cell], store: Store, workers: int
) -> Iterator[tuple[Cell, str]]:
    """Keep every worker at one cell; a cell is handed out when one is free."""
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited; two pools of threads wait for each other
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running: dict[Future[str], Cell] = {}
        for cell in cells:
            running[pool.submit(run_and_keep, cell, store)] = cell
            if len(running) == workers:
                yield from _finished(running)
        while running:
            yield from _finished(running)


def _finished(running: dict[Future[str], Cell]) -> Iterator[tuple[Cell, str]]:
    """Wait for one at least, and take out those that are done."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        cell = running.pop(future)
        try:
            yield cell, future.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                f"{cell}: a worker was ended from outside, expected it to finish; see whether "
                "memory is short and use fewer --workers, then give the same command again"
            ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep a training's own progress off a terminal that shows that of all cells."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield

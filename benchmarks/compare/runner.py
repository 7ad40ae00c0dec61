"""Run the trials that are not done, a process per core; every finished one is kept at once."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from multiprocessing import get_context, parent_process
from pathlib import Path

from tqdm import tqdm

from benchmarks.compare.store import TrialStore
from benchmarks.compare.trial import Trial, run_trial
from index.errors import EsansError, TrainingError

Failures = dict[str, str]


def run_missing(
    trials: list[Trial], store: TrialStore, workers: int, is_time_left: Callable[[], bool]
) -> Failures:
    """Run every trial without a row; return what went wrong, trial -> reason.

    is_time_left  asked before each start; a trial that has begun is let finish

    A trial that fails is told and passed over; it is tried again the next time.
    """
    distinct = {trial.digest: trial for trial in trials}
    missing = [trial for trial in distinct.values() if not store.has(trial)]
    waiting = (trial for trial in missing if is_time_left())
    done_count = len(distinct) - len(missing)
    failures: Failures = {}
    if not missing:
        return failures
    with tqdm(total=len(distinct), initial=done_count, desc="trials", unit=" trials") as bar:
        finished = _in_parallel(waiting, store, min(workers, len(missing)))
        if workers == 1:
            finished = ((trial, run_and_keep(trial, store)) for trial in waiting)
        for trial, failure in finished:
            bar.update()
            bar.set_postfix_str(str(trial))
            if failure:
                failures[str(trial)] = failure
                tqdm.write(f"{trial}: {failure}")
    return failures


def run_and_keep(trial: Trial, store: TrialStore) -> str:
    """Run a trial and keep its row; return what went wrong, "" if nothing."""
    try:
        with (  # a terminal that shows the progress of all trials shows that of none
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            figures, recalls = run_trial(trial)
    except EsansError as error:
        return str(error)
    store.save(trial, figures, recalls, datetime.now(UTC))
    return ""


def deadline(hours: float | None) -> Callable[[], bool]:
    """Return a clock that tells whether so many hours have not yet passed; None is for ever."""
    end = float("inf") if hours is None else time.monotonic() + 3_600 * hours
    return lambda: time.monotonic() < end


def _in_parallel(
    trials: Iterator[Trial], store: TrialStore, workers: int
) -> Iterator[tuple[Trial, str]]:
    """Keep every worker at one trial; a trial is handed out when one is free."""
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited; two pools of threads wait for each other
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=end_with_the_parent) as pool:
        running: dict[Future[str], Trial] = {}
        for trial in trials:
            running[pool.submit(run_and_keep, trial, store)] = trial
            if len(running) == workers:
                yield from _finished(running)
        while running:
            yield from _finished(running)


def end_with_the_parent() -> None:
    """End this worker as soon as the process that started it is gone, killed even.

    A worker would else finish its trial, then wait for work that never comes.
    """
    parent = parent_process()
    if parent is None:
        raise ValueError("only a worker has a parent to end with")

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _finished(running: dict[Future[str], Trial]) -> Iterator[tuple[Trial, str]]:
    """Wait for one at least, and take out those that are done."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        trial = running.pop(future)
        try:
            yield trial, future.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                f"{trial}: a worker was ended from outside, expected it to finish; see whether "
                "memory is short and use fewer --workers, then give the same command again"
            ) from error

"""Runner of the missing trials, in worker processes; each finished trial is saved at once."""

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
    """Run every trial without a row; return the failures, trial -> reason.

    A failed trial is logged and skipped; the next session retries it.

    Args:
        trials: All trials, finished or not.
        store: Stores finished trials.
        workers: Number of processes.
        is_time_left: Checked before each start; running trials are not interrupted.
    """
    distinct = {trial.digest: trial for trial in trials}
    missing = [trial for trial in distinct.values() if not store.has(trial)]
    pending = (trial for trial in missing if is_time_left())
    num_finished = len(distinct) - len(missing)
    failures: Failures = {}
    if not missing:
        return failures
    with tqdm(total=len(distinct), initial=num_finished, desc="trials", unit=" trials") as bar:
        finished = _in_parallel(pending, store, min(workers, len(missing)))
        if workers == 1:
            finished = ((trial, run_and_save(trial, store)) for trial in pending)
        for trial, failure in finished:
            bar.update()
            bar.set_postfix_str(str(trial))
            if failure:
                failures[str(trial)] = failure
                tqdm.write(f"{trial}: {failure}")
    return failures


def run_and_save(trial: Trial, store: TrialStore) -> str:
    """Run a trial and save its row; return the error message, "" on success."""
    try:
        with (  # only the progress bar of the study is shown
            Path(os.devnull).open("w", encoding="utf-8") as devnull,
            redirect_stdout(devnull),
            redirect_stderr(devnull),
        ):
            figures, recalls = run_trial(trial)
    except EsansError as error:
        return str(error)
    store.save(trial, figures, recalls, datetime.now(UTC))
    return ""


def build_deadline(hours: float | None) -> Callable[[], bool]:
    """Return a function that says whether time is left; None means no limit."""
    end = float("inf") if hours is None else time.monotonic() + 3_600 * hours
    return lambda: time.monotonic() < end


def _in_parallel(
    trials: Iterator[Trial], store: TrialStore, workers: int
) -> Iterator[tuple[Trial, str]]:
    """Run trials in a process pool; submit the next one when a worker is free."""
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers; avoids oversubscription
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=exit_with_parent) as pool:
        running: dict[Future[str], Trial] = {}
        for trial in trials:
            running[pool.submit(run_and_save, trial, store)] = trial
            if len(running) == workers:
                yield from _pop_finished(running)
        while running:
            yield from _pop_finished(running)


def exit_with_parent() -> None:
    """Exit this worker as soon as its parent process ends, even if it was killed.

    Otherwise an orphaned worker would finish its trial and then wait forever.
    """
    parent = parent_process()
    if parent is None:
        raise ValueError("this process has no parent: call it in a worker")

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _pop_finished(running: dict[Future[str], Trial]) -> Iterator[tuple[Trial, str]]:
    """Wait for at least one trial; remove and yield the finished ones."""
    finished, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in finished:
        trial = running.pop(future)
        try:
            yield trial, future.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                f"{trial}: a worker process was killed; check whether memory is short, use "
                "fewer --workers and run the same command again"
            ) from error

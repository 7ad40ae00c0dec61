"""SIGHUP means: look now."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_hangup(act: Callable[[], None]) -> Iterator[None]:
    """Act on each SIGHUP meanwhile; only where the running loop is the main thread's.

    Elsewhere, as where an app is mounted in another, signals are somebody else's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)

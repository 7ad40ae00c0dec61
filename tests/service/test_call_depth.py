"""Number of our frames between the route, or the queue's consumer, and FAISS."""

import sys
import threading
from pathlib import Path

import faiss
import pytest

from tests.support.http_caller import running
from tests.support.synthetic_bundle import publish_handmade

ROOT = Path(__file__).parents[2]
OWN = (str(ROOT / "index"), str(ROOT / "service"))
FAISS = str(Path(faiss.__file__).parent)
NUM_ITEMS = 600
MAX_FRAMES = 8
ROUTE = "retrieval.retrieve"
ROOTS = ("request_queue.consume", "retrieval_service.process")  # loop, executor


class Watch:
    """Profiler of a thread that records names of our frames, outermost first.

    Attributes:
        searches: the stack of each search by FAISS.
        route: the deepest stack below the route function.
    """

    def __init__(self):
        self.searches, self.route = [], []

    def __call__(self, frame, event, called):
        if event == "call" and frame.f_code.co_filename.startswith(OWN):
            own = own_frames(frame)
            if ROUTE in own:
                below = own[own.index(ROUTE) :]
                self.route = max(self.route, below, key=len)
        elif event == "c_call" and is_search(frame, called):
            self.searches.append(own_frames(frame))


def own_frames(frame):
    names = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(OWN):
            module = Path(frame.f_code.co_filename).stem
            names.append(f"{module}.{frame.f_code.co_name}")
        frame = frame.f_back
    return names[::-1]


def is_search(frame, called):
    """Return whether FAISS's Python wrapper calls its compiled search."""
    is_own = frame.f_code.co_filename.startswith(FAISS)
    return is_own and "search" in called.__name__ and "Parameters" not in called.__name__


@pytest.fixture(scope="module", params=["exact", "in lists"])
def bundles(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in lists":
            patch.setattr("index.ann.tuning.FLAT_LIMIT", NUM_ITEMS - 1)
        publish_handmade(folder, count=NUM_ITEMS)
    return folder


@pytest.fixture(scope="module")
def watched_app(bundles):
    """Watch of the event loop and of new threads, and a caller."""
    watch = Watch()
    threading.setprofile(watch)
    try:
        with running(bundles) as caller:
            caller.wait_for("ready")
            yield watch, caller
            caller.run(sys.setprofile, None)
    finally:
        threading.setprofile(None)


@pytest.fixture
def watch(watched_app):
    """The same, without the calls of other tests."""
    watch, caller = watched_app
    watch.searches, watch.route = [], []
    return watch, caller


@pytest.mark.parametrize(
    "query",
    [
        {"history": ["item-0", "item-2"], "k": 20},
        {"history": ["item-1"], "filter": {"parity": ["odd"]}},
        {"history": ["item-1"], "k": 590},
        {"history": [f"item-{row}" for row in range(400)]},
    ],
)
def test_call_depth_from_consumer_to_faiss(watch, query):
    watched, caller = watch
    assert caller.retrieve(**query).status_code == 200
    assert watched.searches or "filter" in query  # a narrow filter is compared row by row
    for own in watched.searches:
        assert own[0] in ROOTS, own
        assert len(own) <= MAX_FRAMES, own


def test_call_depth_from_executor_to_faiss(watch):
    watched, caller = watch
    unknown = [f"unknown-{row}" for row in range(3_000)]
    assert caller.retrieve(history=[*unknown, "item-0"]).status_code == 200
    assert watched.searches
    for own in watched.searches:
        assert own[0] == ROOTS[1], own
        assert len(own) <= MAX_FRAMES, own


def test_call_depth_below_route(watch):
    watched, caller = watch
    caller.retrieve(history=["item-0"], k=5, filter={"parity": ["even"]}, include=["clusters"])
    assert watched.route[0] == ROUTE
    assert len(watched.route) <= MAX_FRAMES, watched.route

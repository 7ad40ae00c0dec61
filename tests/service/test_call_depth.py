"""How many of our own frames lie between a route, or the queue's consumer, and FAISS."""

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
COUNT = 600
MOST = 8
ROUTE = "retrieval.retrieve"
ROOTS = ("request_queue.consume", "retrieval_service.process")  # loop, executor


class Watch:
    """Profiles a thread; keeps the names of our own frames, outermost first.

    searches  the stack of each search by FAISS
    routes    the deepest stack below the route function
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
    """Tell whether FAISS's own wrapper calls into its compiled library to search."""
    is_own = frame.f_code.co_filename.startswith(FAISS)
    return is_own and "search" in called.__name__ and "Parameters" not in called.__name__


@pytest.fixture(scope="module", params=["exact", "in lists"])
def bundles(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in lists":
            patch.setattr("index.ann.tuning.FLAT_LIMIT", COUNT - 1)
        publish_handmade(folder, count=COUNT)
    return folder


@pytest.fixture
def watch(bundles):
    """A watch on the event loop and on threads that begin from now on, and a caller."""
    watch = Watch()
    threading.setprofile(watch)
    try:
        with running(bundles) as caller:
            caller.wait_for("ready")
            watch.searches.clear()
            yield watch, caller
            caller.run(sys.setprofile, None)
    finally:
        threading.setprofile(None)


@pytest.mark.parametrize(
    "query",
    [
        {"history": ["item-0", "item-2"], "k": 20},
        {"history": ["item-1"], "filter": {"parity": ["odd"]}},
        {"history": ["item-1"], "k": 590},
        {"history": [f"item-{row}" for row in range(400)]},
    ],
)
def test_faiss_is_at_most_eight_frames_below_the_consumer(watch, query):
    watched, caller = watch
    assert caller.retrieve(**query).status_code == 200
    assert watched.searches or "filter" in query  # a narrow filter is compared row by row
    for own in watched.searches:
        assert own[0] in ROOTS, own
        assert len(own) <= MOST, own


def test_faiss_is_at_most_eight_frames_below_the_executor(watch):
    watched, caller = watch
    strangers = [f"stranger-{row}" for row in range(3_000)]
    assert caller.retrieve(history=[*strangers, "item-0"]).status_code == 200
    assert watched.searches
    for own in watched.searches:
        assert own[0] == ROOTS[1], own
        assert len(own) <= MOST, own


def test_nothing_below_the_route_is_deeper_than_eight_frames(watch):
    watched, caller = watch
    caller.retrieve(history=["item-0"], k=5, filter={"parity": ["even"]}, include=["clusters"])
    assert watched.route[0] == ROUTE
    assert len(watched.route) <= MOST, watched.route

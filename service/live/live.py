"""What answers: a bundle, a retriever over it, and the rows that are never returned."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from index.bitmap import RowSet
from index.bundle.reader import Bundle, open_bundle
from index.deny.deny_list import DenyList
from index.retriever import Question, Retriever

WARM_COUNT = 100  # candidates of a question asked to warm up
WARM_QUESTIONS = 8


@dataclass(frozen=True)
class Live:
    """A bundle and what answers from it; replaced whole, never changed.

    denied  rows that are never returned, whoever asks; None where there are none
    """

    bundle: Bundle
    retriever: Retriever
    denied: RowSet | None = None


def open_live(folder: Path) -> Live:
    """Open a bundle for answering; raises what `open_bundle` raises."""
    bundle = open_bundle(folder)
    return Live(bundle, Retriever(bundle))


def denying(live: Live, deny_list: DenyList | None) -> Live:
    """Join a deny list with the bundle's items; ids that it does not hold are passed over."""
    rows = live.bundle.items.rows_of(deny_list.ids if deny_list else ())
    known = rows[rows >= 0]
    denied = RowSet.from_rows(known, len(live.bundle.items)) if len(known) else None
    return replace(live, denied=denied)


def warm(live: Live) -> None:
    """Answer a few questions, so that no caller is the first to touch a page or a graph.

    Whatever it raises, a caller would have met.
    """
    if live.bundle.filters is not None:
        live.bundle.filters.keys.row_of("")
    for question in questions_to_warm(live.bundle):
        live.retriever.find(question, live.denied)


def questions_to_warm(bundle: Bundle) -> list[Question]:
    """Ask about items from all over the catalogue, about a known user, and about nobody."""
    rows = np.linspace(0, len(bundle.items) - 1, WARM_QUESTIONS).astype(np.int32)
    asked = [Question(WARM_COUNT, history=[one]) for one in bundle.items.ids_of(rows)]
    if bundle.histories and len(bundle.histories.users):
        asked += [Question(WARM_COUNT, user_id=bundle.histories.users.ids_of([0])[0])]
    return [*asked, Question(WARM_COUNT)]

"""Between the caller's words and the index's: a request becomes a question, and back."""

import time
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import NamedTuple, TypeVar, cast

import orjson

from index.bitmap import RowSet
from index.metadata import Attributes
from index.retriever import Answer, Prepared, Question, SimilarQuestion
from service.bodies import json_bytes
from service.composing import compose, spoken
from service.filtering import filter_of
from service.metrics import Metrics
from service.schemas.retrieval import Candidate, Include, RetrieveAnswer, RetrieveRequest
from service.schemas.similar import SimilarRequest
from service.state.bundle_watcher import Live
from service.state.cluster_watcher import Joined

One = TypeVar("One", RetrieveRequest, SimilarRequest)
Prepare = Callable[[Live, Sequence[One]], Sequence[Prepared]]


class Given(NamedTuple):
    """What came of a question.

    answer      None where that takes long
    candidates  those of the answer as JSON; None where they are still to be written
    denied      what was denied when it was searched for
    """

    prepared: Prepared
    answer: Answer | None
    candidates: bytes | None
    denied: RowSet | None


def give(
    live: Live,
    prepare: Prepare[One],
    asked: Sequence[One],
    denied: RowSet | None,
    metrics: Metrics,
) -> list[Given]:
    """Answer questions in one go, each as if asked alone; raises what `prepare` raises."""
    with metrics.encode_s.time():
        prepared = prepare(live, asked)
    with metrics.search_s.time():
        answers = live.retriever.finish_quickly(prepared, denied)
    candidates = write_plain(live, asked, answers, metrics)
    given = zip(prepared, answers, candidates, strict=True)
    return [Given(*one, denied) for one in given]


def write_plain(
    live: Live, asked: Sequence[One], answers: Sequence[Answer | None], metrics: Metrics
) -> list[bytes | None]:
    """Write the candidates of those who want no more than ids and scores, all together."""
    written: list[bytes | None] = [None] * len(answers)
    plain = {
        place: answer
        for place, (one, answer) in enumerate(zip(asked, answers, strict=True))
        if answer is not None and answer.scores is not None and not one.include
    }
    began = time.perf_counter()
    together = compose(live.bundle.items, list(plain.values())) if plain else None
    if together is not None:
        metrics.write_s.observe(time.perf_counter() - began)
        for place, own in zip(plain, together, strict=True):
            written[place] = own
    return written


def written(
    live: Live,
    joined: Joined | None,
    include: Include,
    given: Given,
    denied: RowSet | None,
    metrics: Metrics,
) -> bytes | None:
    """Write the answer to a question as JSON; None if finding it takes a long search.

    denied  by now: where that has changed since the question was searched for, it is again
    """
    answer, candidates = given.answer, given.candidates
    if answer is not None and given.denied is not denied:
        with metrics.search_s.time():
            (answer,) = live.retriever.finish_quickly([given.prepared], denied)
        candidates = None
    if answer is None:
        return None
    metrics.count_answer(answer, given.prepared)
    if candidates is not None:
        return json_bytes(tell(live, joined, answer, include, candidates))
    with metrics.write_s.time():
        return json_bytes(tell(live, joined, answer, include))


def prepare_users(live: Live, asked: Sequence[RetrieveRequest]) -> list[Prepared]:
    """Make questions about users ready for the search; encoded together."""
    return live.retriever.prepare([question_of(one) for one in asked])


def prepare_similar(live: Live, asked: Sequence[SimilarRequest]) -> list[Prepared]:
    """Make questions about items ready; raises UnknownItemError for one that is not held."""
    return [live.retriever.prepare_similar(similar_of(one)) for one in asked]


def question_of(asked: RetrieveRequest) -> Question:
    """Put a request into the index's words."""
    return Question(
        count=asked.k,
        user_id=asked.user_id,
        history=asked.history,
        exclude=asked.exclude,
        exclude_seen=asked.exclude_seen,
        filter=asked.filter,
    )


def similar_of(asked: SimilarRequest) -> SimilarQuestion:
    """Put a request for similar items into the index's words."""
    return SimilarQuestion(asked.item_id, asked.k, asked.exclude, filter_of(asked.filter))


def tell(
    live: Live,
    joined: Joined | None,
    answer: Answer,
    include: Include,
    written: bytes | None = None,
) -> RetrieveAnswer:
    """Put the index's answer into the caller's words, with what was asked for besides.

    written  its candidates as JSON, where that is done already
    """
    if written is not None:
        candidates = cast(list[Candidate], orjson.Fragment(written))
    else:
        candidates = candidates_of(answer)
    told = answer_of(live.bundle.version, candidates, answer)
    if "clusters" in include:
        add_clusters(told, joined)
    if "attributes" in include:
        add_attributes(told, live.bundle.attributes, answer)
    return told


def candidates_of(answer: Answer) -> list[Candidate]:
    """Tell candidates with their scores."""
    scores: Sequence[float | None] = [None] * len(answer.rows)
    if answer.scores is not None:
        scores = spoken(answer.scores)
    return [
        {"item_id": item_id, "score": score}
        for item_id, score in zip(answer.item_ids, scores, strict=True)
    ]


def answer_of(version: str, candidates: list[Candidate], answer: Answer) -> RetrieveAnswer:
    """Tell candidates, and what was unusual."""
    told: RetrieveAnswer = {"bundle": version, "candidates": candidates}
    if answer.fallback:
        told["fallback"] = answer.fallback
    if answer.unknown:
        told["unknown_items"] = answer.unknown
    if answer.unknown_values:
        told["unknown_values"] = dict(answer.unknown_values)
    return told


def add_clusters(told: RetrieveAnswer, joined: Joined | None) -> None:
    """Tell each candidate's codes, and in which map; found by id: the map follows a bundle."""
    candidates = told["candidates"]
    codes = joined.codes_of([one["item_id"] for one in candidates]) if joined else []
    for candidate, own in zip_longest(candidates, codes):
        candidate["cluster"] = own
    if joined:
        told["clusters"] = joined.version


def add_attributes(told: RetrieveAnswer, known: Attributes | None, answer: Answer) -> None:
    """Tell what the bundle tells of each candidate: JSON already, passed on as it stands."""
    candidates = told["candidates"]
    texts = [b"{}"] * len(candidates) if known is None else known.of(answer.rows)
    for candidate, text in zip(candidates, texts, strict=True):
        candidate["attributes"] = cast(dict[str, object], orjson.Fragment(text))

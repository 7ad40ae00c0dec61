"""Between the caller's words and the index's: a request becomes a question, and back."""

from itertools import zip_longest

from index.retriever import Answer, Question
from service.live_clusters import Joined
from service.retrieval_schemas import RetrieveAnswer, RetrieveRequest


def question_of(asked: RetrieveRequest) -> Question:
    """Put a request into the index's words."""
    return Question(
        count=asked.k,
        user_id=asked.user_id,
        history=asked.history,
        exclude=asked.exclude,
        exclude_seen=asked.exclude_seen,
    )


def answer_of(version: str, answer: Answer) -> RetrieveAnswer:
    """Put the index's answer into the caller's words."""
    scores = [None] * len(answer.item_ids) if answer.scores is None else answer.scores
    told: RetrieveAnswer = {
        "bundle": version,
        "candidates": [
            {"item_id": item_id, "score": score}
            for item_id, score in zip(answer.item_ids, scores, strict=True)
        ],
    }
    if answer.fallback:
        told["fallback"] = answer.fallback
    if answer.unknown:
        told["unknown_items"] = answer.unknown
    return told


def add_clusters(told: RetrieveAnswer, joined: Joined | None) -> None:
    """Tell each candidate's codes, and in which map; found by id: the map follows a bundle."""
    candidates = told["candidates"]
    codes = joined.codes_of([one["item_id"] for one in candidates]) if joined else []
    for candidate, own in zip_longest(candidates, codes):
        candidate["cluster"] = own
    if joined:
        told["clusters"] = joined.version

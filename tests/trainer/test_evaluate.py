import numpy as np
import pytest

from index.bundle.reader import open_bundle
from index.search.retriever import Retriever
from tests.support.synthetic_bundle import item_vectors, mean_query, publish_handmade
from tests.support.training_data import as_histories
from trainer.config import EvaluationConfig
from trainer.data.interactions import Cases
from trainer.evaluate import evaluate, rank_by_retriever, table_of
from trainer.metrics import EvaluationSet

# even users like even items; what each took last is held out
TOOK = [[0, 2, 4], [1, 3], [8], [5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27], [38, 36]]
HELD_OUT = [[6, 10], [5], [12], [29], [0]]
CASES = Cases(np.arange(5, dtype=np.int32), as_histories(TOOK), as_histories(HELD_OUT))
ITEM_IDS = [f"item-{row}" for row in range(40)]
ASKED = EvaluationSet(ITEM_IDS, CASES, as_histories(TOOK), np.arange(40, 0, -1))


@pytest.fixture(scope="module", params=["flat", "in lists"])
def retriever(request, tmp_path_factory):
    bundles = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "flat":
            patch.setattr("index.ann.tuning.FLAT_LIMIT", 10)
        opened = open_bundle(bundles / publish_handmade(bundles))
    return Retriever(opened)


def asked(retriever, ease_items_limit=1_000):
    config = EvaluationConfig(ease_lambda=1.0, ease_items_limit=ease_items_limit)
    return evaluate(retriever, ASKED, config)


def test_the_answers_are_the_full_ranking_without_what_was_seen(retriever):
    vectors = item_vectors()
    for history, answer in zip(TOOK, rank_by_retriever(retriever, ASKED), strict=True):
        scores = vectors @ mean_query(vectors, history)
        wanted = [row for row in np.argsort(-scores) if row not in history]
        assert answer[: len(wanted)].tolist() == wanted
        assert (answer[len(wanted) :] == -1).all()


def test_every_method_is_measured_on_the_same_cases_by_the_same_measures(retriever):
    report = asked(retriever)
    assert report["cases"] == 5
    assert report["model"].keys() == report["popularity"].keys() == report["ease"].keys()
    assert report["buckets"].keys() == {"model", "popularity", "ease"}
    assert report["model"]["recall@20"] == 1  # 20 items of a parity, some of them seen
    assert report["model"]["coverage@50"] == 1  # the catalogue holds 40


def test_ease_is_skipped_above_its_limit_and_the_report_says_so(retriever):
    report = asked(retriever, ease_items_limit=39)
    assert "ease" not in report
    assert report["notes"] == ["EASE skipped: 40 items, the limit is 39"]
    assert report["notes"][0] in table_of(report)


def test_the_table_names_every_method_and_every_measure(retriever):
    report = asked(retriever)
    table = table_of(report)
    for name in ("model", "popularity", "ease", "head", "torso", "tail", *report["model"]):
        assert name in table
    assert table.startswith("5 test cases")

from dataclasses import replace

import numpy as np
import pytest

from index.bundle.reader import open_bundle
from index.search.retriever import Retriever
from tests.support.synthetic_bundle import item_vectors, mean_query, publish_handmade
from tests.support.training_data import as_histories
from trainer.config import EvaluationConfig
from trainer.data.interactions import Cases
from trainer.evaluate import evaluate, rank_by_retriever, render_report
from trainer.metrics import EaseData, EvaluationSet

# even users like even items; the last items of each are held out
HISTORIES = [[0, 2, 4], [1, 3], [8], [5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27], [38, 36]]
HELD_OUT = [[6, 10], [5], [12], [29], [0]]
CASES = Cases(np.arange(5, dtype=np.int32), as_histories(HISTORIES), as_histories(HELD_OUT))
ITEM_IDS = [f"item-{row}" for row in range(40)]
EASE = EaseData(as_histories(HISTORIES), CASES)
EVALUATED = EvaluationSet(ITEM_IDS, CASES, 5, np.arange(40, 0, -1), EASE)


@pytest.fixture(scope="module", params=["flat", "in lists"])
def retriever(request, tmp_path_factory):
    bundles = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "flat":
            patch.setattr("index.ann.tuning.FLAT_LIMIT", 10)
        opened = open_bundle(bundles / publish_handmade(bundles))
    return Retriever(opened)


def report_of(retriever, **changes):
    config = EvaluationConfig(ease_lambdas=(1.0, 2.0), ease_items_limit=39)
    return evaluate(retriever, replace(EVALUATED, **changes), config)


def test_rank_by_retriever_ranks_all_unseen_items(retriever):
    vectors = item_vectors()
    for history, ranking in zip(HISTORIES, rank_by_retriever(retriever, EVALUATED), strict=True):
        scores = vectors @ mean_query(vectors, history)
        expected = [row for row in np.argsort(-scores) if row not in history]
        assert ranking[: len(expected)].tolist() == expected
        assert (ranking[len(expected) :] == -1).all()


def test_evaluate_reports_same_metrics_for_all_methods(retriever):
    report = report_of(retriever)
    assert report["cases"] == 5
    assert report["model"].keys() == report["popularity"].keys() == report["ease"].keys()
    assert report["buckets"].keys() == {"model", "popularity", "ease"}
    assert report["model"]["recall@20"] == 1  # 20 items of a parity, some of them seen
    assert report["model"]["coverage@50"] == 1  # the catalogue holds 40


def test_evaluate_skips_ease_above_item_limit(retriever):
    report = report_of(retriever, ease=None)
    assert "ease" not in report
    assert report["notes"] == ["EASE skipped: 40 items, the limit is 39"]
    assert report["notes"][0] in render_report(report)


def test_evaluate_reports_the_chosen_lambda(retriever):
    report = report_of(retriever)
    assert report["ease_lambda"] in (1.0, 2.0)
    assert report["notes"] == [
        f"EASE: lambda {report['ease_lambda']:g}, chosen on validation from 1, 2"
    ]


def test_evaluate_intervals_contain_the_means(retriever):
    report = report_of(retriever)
    assert report["intervals"].keys() == {"model", "popularity", "ease"}
    for method, intervals in report["intervals"].items():
        assert intervals.keys() == report[method].keys() - {"coverage@50"}
        for name, (low, high) in intervals.items():
            assert low <= report[method][name] <= high


def test_render_report_lists_all_methods_and_metrics(retriever):
    report = report_of(retriever)
    table = render_report(report)
    for name in ("model", "popularity", "ease", "head", "torso", "tail", *report["model"]):
        assert name in table
    assert table.startswith("5 test cases\n")
    assert render_report(report_of(retriever, total_cases=9)).startswith(
        "5 test cases, sampled from 9\n"
    )


def test_render_report_has_a_parseable_model_row(retriever):
    report = report_of(retriever)
    rows = [line.split() for line in render_report(report).splitlines()]
    (model,) = [words[1:] for words in rows if words and words[0] == "model"]
    np.testing.assert_allclose([float(x) for x in model], [*report["model"].values()], atol=5e-5)

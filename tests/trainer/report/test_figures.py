import numpy as np

from tests.support.report_bundles import COUNT, CURVE, MARKUP, METRICS, cluster_map
from trainer.report.figures import (
    buckets_figure,
    curve_figure,
    hardness_figure,
    methods_figure,
    sizes_figure,
)
from trainer.report.item_map import MAX_LABELS, map_figure, project_items

BUCKETS = ("head", "torso", "tail", "cold")


def unit_rows(count, width=8):
    rows = np.random.default_rng(0).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_curve_figure_marks_best_epoch():
    loss, loss_star, recall, recall_star = curve_figure(CURVE, 2).data
    assert list(loss.x) == list(recall.x) == [1, 2, 3]
    assert list(loss.y) == [3.5, 2.5, 2.0]
    assert list(recall.y) == [0.25, 0.75, 0.5]
    assert (loss_star.x, loss_star.y) == ((2,), (2.5,))
    assert (recall_star.x, recall_star.y) == ((2,), (0.75,))


def test_methods_figure_shows_metrics_of_manifest():
    measures = {name: METRICS[name] for name in ("model", "popularity", "ease")}
    recalls, gains = methods_figure(measures).data[:3], methods_figure(measures).data[3:]
    for bars, kind in ((recalls, "recall"), (gains, "ndcg")):
        for bar, metrics in zip(bars, measures.values(), strict=True):
            assert list(bar.y) == [metrics[f"{kind}@{count}"] for count in (20, 50, 200)]


def test_buckets_figure_omits_bars_below_200_cases():
    figure = buckets_figure(METRICS["buckets"], BUCKETS)
    model = figure.data[0]
    assert list(model.y) == [0.8, 0.4, None, None]
    assert model.x[2] == "tail<br>test items: 199"
    assert [annotation.x for annotation in figure.layout.annotations] == list(model.x[2:])


def test_sizes_figure_sorts_clusters_by_size():
    figure = sizes_figure([3, 9, 5], ["a", MARKUP, "c"])
    bars = figure.data[0]
    assert list(bars.y) == [9, 5, 3]
    assert [data[0] for data in bars.customdata] == [1, 2, 0]
    assert "<script>" not in bars.customdata[0][1]


def test_map_figure_shows_title_category_and_cluster():
    item_map = project_items(unit_rows(COUNT), seed=0)
    titles = [MARKUP, *(f"item {row}" for row in range(1, COUNT))]
    labels = [("odd" if row % 2 else None) for row in range(COUNT)]
    figure = map_figure(item_map, titles, cluster_map().codes1.tolist(), labels)
    by_cluster, others, odd = figure.data
    assert by_cluster.text[7] == "item 7<br>odd<br>cluster 2"
    assert by_cluster.text[0].startswith("&lt;script&gt;")
    assert (others.name, len(others.x)) == ("all others", COUNT // 2)
    assert (odd.name, len(odd.x)) == ("odd", COUNT // 2)
    assert len(set(by_cluster.marker.color)) == 5


def test_map_figure_works_without_clusters_and_categories():
    item_map = project_items(unit_rows(10), seed=0)
    (dots,) = map_figure(item_map, [f"item {row}" for row in range(10)], None, None).data
    assert len(dots.x) == 10


def test_map_figure_rare_categories_share_a_colour():
    labels = [f"label {row % (MAX_LABELS + 3)}" for row in range(COUNT)]
    item_map = project_items(unit_rows(COUNT), seed=0)
    names = [trace.name for trace in map_figure(item_map, [""] * COUNT, None, labels).data]
    assert names[0] == "all others"
    assert len(names) == MAX_LABELS + 1


def test_project_items_small_catalogue_uses_pca():
    for count in (1, 2, 10):
        item_map = project_items(unit_rows(count), seed=0)
        assert item_map.method == "PCA"
        assert np.isfinite(item_map.coordinates).all()
        assert item_map.coordinates.shape == (count, 2)


def test_project_items_sample_is_deterministic():
    first, repeated = (project_items(unit_rows(100), seed=3, max_items=40) for _ in range(2))
    assert len(first.rows) == 40
    assert (first.rows == repeated.rows).all()
    assert (np.diff(first.rows) > 0).all()


def test_hardness_figure_draws_each_source_where_it_is_known():
    points = [{"step": 0, "positives": 0.5}, {"step": 9, "positives": 0.6, "easy": 0.1}]
    positives, easy = hardness_figure(points).data
    assert (positives.name, list(positives.x), list(positives.y)) == (
        "positives",
        [0, 9],
        [0.5, 0.6],
    )
    assert (easy.name, list(easy.x), list(easy.y)) == ("easy", [9], [0.1])

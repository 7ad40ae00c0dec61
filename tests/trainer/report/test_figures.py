import numpy as np

from tests.support.report_bundles import COUNT, CURVE, MARKUP, MEASURES, cluster_map
from trainer.report.figures import buckets_figure, curve_figure, methods_figure, sizes_figure
from trainer.report.item_map import MAX_LABELS, map_figure, project_items

BUCKETS = ("head", "torso", "tail", "cold")


def unit_rows(count, width=8):
    rows = np.random.default_rng(0).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_curve_is_the_manifests_and_the_star_is_on_the_best_epoch():
    loss, loss_star, recall, recall_star = curve_figure(CURVE, 2).data
    assert list(loss.x) == list(recall.x) == [1, 2, 3]
    assert list(loss.y) == [3.5, 2.5, 2.0]
    assert list(recall.y) == [0.25, 0.75, 0.5]
    assert (loss_star.x, loss_star.y) == ((2,), (2.5,))
    assert (recall_star.x, recall_star.y) == ((2,), (0.75,))


def test_bars_of_methods_are_the_manifests_numbers():
    measures = {name: MEASURES[name] for name in ("model", "popularity", "ease")}
    recalls, gains = methods_figure(measures).data[:3], methods_figure(measures).data[3:]
    for bars, kind in ((recalls, "recall"), (gains, "ndcg")):
        for bar, found in zip(bars, measures.values(), strict=True):
            assert list(bar.y) == [found[f"{kind}@{count}"] for count in (20, 50, 200)]


def test_a_bucket_below_200_cases_has_a_count_but_no_bar():
    figure = buckets_figure(MEASURES["buckets"], BUCKETS)
    model = figure.data[0]
    assert list(model.y) == [0.8, 0.4, None, None]
    assert model.x[2] == "tail<br>test items: 199"
    assert [one.x for one in figure.layout.annotations] == list(model.x[2:])


def test_sizes_are_the_maps_largest_first():
    figure = sizes_figure([3, 9, 5], ["a", MARKUP, "c"])
    bars = figure.data[0]
    assert list(bars.y) == [9, 5, 3]
    assert [one[0] for one in bars.customdata] == [1, 2, 0]
    assert "<script>" not in bars.customdata[0][1]


def test_a_map_shows_each_items_title_category_and_cluster_on_hover():
    drawn = project_items(unit_rows(COUNT), seed=0)
    titles = [MARKUP, *(f"thing {row}" for row in range(1, COUNT))]
    labels = [("odd" if row % 2 else None) for row in range(COUNT)]
    figure = map_figure(drawn, titles, cluster_map().codes1.tolist(), labels)
    by_cluster, others, odd = figure.data
    assert by_cluster.text[7] == "thing 7<br>odd<br>cluster 2"
    assert by_cluster.text[0].startswith("&lt;script&gt;")
    assert (others.name, len(others.x)) == ("all others", COUNT // 2)
    assert (odd.name, len(odd.x)) == ("odd", COUNT // 2)
    assert len(set(by_cluster.marker.color)) == 5


def test_without_clusters_and_categories_the_items_are_drawn_all_the_same():
    drawn = project_items(unit_rows(10), seed=0)
    (dots,) = map_figure(drawn, [f"thing {row}" for row in range(10)], None, None).data
    assert len(dots.x) == 10


def test_rare_categories_share_a_colour():
    labels = [f"label {row % (MAX_LABELS + 3)}" for row in range(COUNT)]
    drawn = project_items(unit_rows(COUNT), seed=0)
    names = [one.name for one in map_figure(drawn, [""] * COUNT, None, labels).data]
    assert names[0] == "all others"
    assert len(names) == MAX_LABELS + 1


def test_a_catalogue_too_small_for_neighbourhoods_is_laid_out_by_its_main_axes():
    for count in (1, 2, 10):
        drawn = project_items(unit_rows(count), seed=0)
        assert drawn.method == "PCA"
        assert np.isfinite(drawn.coordinates).all()
        assert drawn.coordinates.shape == (count, 2)


def test_of_a_large_catalogue_the_same_sample_is_drawn_each_time():
    first, again = (project_items(unit_rows(100), seed=3, max_items=40) for _ in range(2))
    assert len(first.rows) == 40
    assert (first.rows == again.rows).all()
    assert (np.diff(first.rows) > 0).all()

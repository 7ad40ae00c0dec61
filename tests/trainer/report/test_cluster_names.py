from tests.support.report_bundles import COUNT, cluster_map
from trainer.report.cluster_names import name_clusters

SUBJECTS = ("green tea", "black tea", "oak table", "oak chair", "wool sock")  # of clusters 0 to 4
TITLES = [f"The {SUBJECTS[row % 5]} No. {row}" for row in range(COUNT)]


def test_cluster_names_are_distinctive_title_words():
    names = name_clusters(cluster_map(), TITLES, None)
    assert names == ["green, tea", "black, tea", "table, oak", "chair, oak", "sock, wool"]


def test_cluster_names_contain_whole_category():
    labels = ["Hot drinks" if row % 5 < 2 else None for row in range(COUNT)]
    names = name_clusters(cluster_map(), None, labels)
    assert names == ["Hot drinks", "Hot drinks", "", "", ""]


def test_cluster_names_omit_category_of_all_items():
    assert name_clusters(cluster_map(), None, ["Goods"] * COUNT) == [""] * 5


def test_cluster_names_without_map_are_empty():
    assert name_clusters(None, TITLES, None) == []

"""Names of clusters: the words and categories that set their items apart."""

import re
from collections import Counter
from collections.abc import Sequence

from index.cluster_map import ClusterMap

NUM_WORDS = 3
WORD = re.compile(r"[^\W\d_]{3,}")  # letters of any script


def name_clusters(
    clusters: ClusterMap | None, titles: Sequence[str] | None, labels: Sequence[str | None] | None
) -> list[str]:
    """Name each cluster by the words whose share in it exceeds their share in all items most.

    A word is one of a title, or a whole category. One that all items have names no cluster.

    Args:
        clusters: of the items; None gives no names.
        titles: [items], or None if the items have none.
        labels: [items], categories, or None.
    """
    if clusters is None:
        return []
    words = [_words_of(row, titles, labels) for row in range(len(clusters))]
    overall = Counter(word for each in words for word in each)
    sizes = clusters.layout.cluster_sizes.tolist()
    counts: list[Counter[str]] = [Counter() for _ in sizes]
    for code, each in zip(clusters.codes1.tolist(), words, strict=True):
        counts[code].update(each)
    return [
        _join_words(count, size, overall, len(words))
        for count, size in zip(counts, sizes, strict=True)
    ]


def _words_of(
    row: int, titles: Sequence[str] | None, labels: Sequence[str | None] | None
) -> set[str]:
    words = set(WORD.findall(titles[row].lower())) if titles else set()
    label = labels[row] if labels else None
    if label is None:
        return words
    return {word for word in words if word not in label.lower()} | {label}


def _join_words(count: Counter[str], size: int, overall: Counter[str], num_items: int) -> str:
    """Join the words with the largest excess share, ties by name."""
    excess = {word: times / size - overall[word] / num_items for word, times in count.items()}
    best = sorted(excess, key=lambda word: (-excess[word], word))[:NUM_WORDS]
    return ", ".join(word for word in best if excess[word] > 0)

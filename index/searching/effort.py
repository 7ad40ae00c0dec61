"""How deep an index is searched, so that it finds what exact search would.

Depth 1 is what the index was tuned to, for the best 100 of all items. Twice as many candidates
lie twice as deep, and so do 100 of the half that a filter keeps: depth grows in proportion.
Figures: docs/decisions/0004-filtered-search.md.
"""

import math
from collections.abc import Sequence

from index.centres import Effort
from index.item_index import ItemIndex
from index.searching.limits import Limits

TUNED_COUNT = 100  # candidates that the index is tuned for
NEARLY_ALL = 0.98  # of the items: as good as all
PARTIAL = 1.15  # what a filter leaves of lists is a little harder to search than whole lists
FEW_ROWS = 40  # in a list; with fewer a list is a sharper choice, and fewer rows need reading
SPARED = 0.8  # of the lists that a random filter would touch: one that touches fewer is not
LEAST_READ = 52  # rows for each candidate: cheap, and clear clusters are tuned to few
AFAR = 11.0  # times nprobe: for queries whose own neighbourhood such a filter leaves out
WIDELY = 3.9  # times nprobe, where some rows are skipped: these may be a query's neighbourhood


def slack(count: int) -> int:
    """Return how many rows beyond `count` to fetch, so that the index's rounding costs none.

    Eight bits a number round little: of the best 100 of a million, 104 hold all but one in a
    thousand, 109 all but one in ten thousand.
    """
    return 4 + count // 20


def effort_for(index: ItemIndex, count: int, share: float, limits: Limits) -> Effort:
    """Return how to search the whole index for the best `count` of a share of the items."""
    is_partial = share < NEARLY_ALL
    depth = max(1.0, count / TUNED_COUNT) * (PARTIAL / share if is_partial else 1.0)
    nprobe = index.nprobe or 1
    least = round(nprobe * (WIDELY * depth if is_partial else (depth - 1) / 2))
    return Effort(depth, max(1, least), max(nprobe, most_lists(index, limits)))


def effort_within(index: ItemIndex, narrow: ItemIndex, count: int, limits: Limits) -> Effort:
    """Return how to search an index narrowed from another.

    Its lists must hold about as many rows together as those that the whole index visits. A
    filter that goes by what items are like leaves out whole lists; then queries that would have
    gone there find their candidates in many lists far away.
    """
    nprobe, more = index.nprobe or 1, max(1.0, count / TUNED_COUNT)
    rows_each = narrow.count / narrow.list_count
    thinner = PARTIAL * index.count / index.list_count / rows_each
    depth = max(1.0, thinner * min(1.0, math.sqrt(rows_each / FEW_ROWS)))
    lists = max(nprobe * depth, LEAST_READ * TUNED_COUNT / rows_each)
    touched_at_random = index.list_count * -math.expm1(-narrow.count / index.list_count)
    if narrow.list_count < SPARED * touched_at_random:
        lists = max(lists, AFAR * nprobe * math.sqrt(narrow.list_count / index.list_count))
    return Effort(depth * more, max(1, round(lists * more)), most_lists(narrow, limits))


def more_efforts(index: ItemIndex, tried: Effort) -> Sequence[Effort]:
    """Return how to search the whole index where too few were found: deeper, then all over."""
    if index.nprobe is None:
        return [Effort()]
    least = round(4 * index.nprobe * tried.depth)
    everywhere = Effort(math.inf, tried.most or index.list_count, tried.most)
    return [tried._replace(depth=4 * tried.depth, least=least), everywhere]


def most_lists(index: ItemIndex, limits: Limits) -> int:
    """Return how many lists may be visited while others wait."""
    rows_each = index.count / index.list_count
    return max(1, min(round(limits.visited / rows_each), index.list_count))

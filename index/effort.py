"""How many lists of an index a search visits, so that it finds what exact search would.

The index is tuned for the best 100 of all items. Twice as many candidates lie twice as deep,
and so do 100 of the half that a filter keeps: effort grows in proportion. Figures:
docs/decisions/0004-filtered-search.md.
"""

import math
from collections.abc import Sequence

from index.item_index import ItemIndex
from index.limits import LIMITS, Limits

TUNED_COUNT = 100  # candidates that nprobe is tuned for
NEARLY_ALL = 0.98  # of the items: as good as all
PARTIAL = 1.1  # what a filter leaves of lists is a little harder to search than whole lists
FEW_ROWS = 40  # in a list; with fewer a list is a sharper choice, and fewer rows need reading
SPARED = 0.8  # of the lists that a random filter would touch: one that touches fewer is not
LEAST_READ = (
    48  # rows for each candidate: cheap, and an index of clear clusters is tuned to few
)
AFAR = 4.5  # times nprobe: effort for queries whose own neighbourhood such a filter leaves out


def slack(count: int) -> int:
    """Return how many rows beyond `count` to fetch, so that the index's rounding costs none."""
    return 16 + count // 4


def lists_for(
    index: ItemIndex, count: int, share: float = 1.0, limits: Limits = LIMITS
) -> int | None:
    """Return how many lists to visit for the best `count` of a share of the items.

    None where the index has no lists: it is exact.
    """
    if index.nprobe is None:
        return None
    depth = max(1.0, count / TUNED_COUNT) * (PARTIAL / share if share < NEARLY_ALL else 1.0)
    wanted = round(index.nprobe * depth)
    return max(index.nprobe, min(wanted, most_lists(index, limits)))


def lists_within(index: ItemIndex, narrow: ItemIndex, count: int, limits: Limits) -> int:
    """Return how many lists of an index narrowed from another to visit.

    They must hold about as many rows together as those that the whole index visits. A filter
    that goes by what items are like leaves out whole lists; then queries that would have gone
    there find their candidates in many lists far away.
    """
    nprobe, depth = index.nprobe or 1, max(1.0, count / TUNED_COUNT)
    rows_each = narrow.count / narrow.list_count
    read = nprobe * index.count / index.list_count * PARTIAL
    read = max(read * min(1.0, math.sqrt(rows_each / FEW_ROWS)), LEAST_READ * TUNED_COUNT)
    lists = read / rows_each
    touched_at_random = index.list_count * -math.expm1(-narrow.count / index.list_count)
    if narrow.list_count < SPARED * touched_at_random:
        lists = max(lists, AFAR * nprobe * math.sqrt(narrow.list_count / index.list_count))
    return max(1, min(round(lists * depth), most_lists(narrow, limits)))


def more_lists(index: ItemIndex, limits: Limits) -> Sequence[int | None]:
    """Return how many lists to visit where too few were found, each more than the one before.

    [None] where the index has no lists: it is exact.
    """
    if index.nprobe is None:
        return [None]
    most = max(index.nprobe, most_lists(index, limits))
    return sorted({min(4 * index.nprobe, most), most})


def most_lists(index: ItemIndex, limits: Limits) -> int:
    """Return how many lists may be visited while others wait."""
    rows_each = index.count / index.list_count
    return max(1, min(round(limits.visited / rows_each), index.list_count))

"""Questions asked together, in parts: large enough to pay, too small to hold up others."""

from collections.abc import Sequence

MOST_QUESTIONS = 16  # made ready in one turn: 2 to 3 ms where they are short
MOST_IDS = 2_000  # looked up in one turn: about as long


def parts_of(id_counts: Sequence[int]) -> list[slice]:
    """Divide questions, in their order; a part holds one at least, however long.

    id_counts  how many ids, or values to filter by, each names
    """
    parts: list[slice] = []
    begin = id_count = 0
    for place, own in enumerate(id_counts):
        is_full = place - begin == MOST_QUESTIONS or id_count + own > MOST_IDS
        if is_full and place > begin:
            parts.append(slice(begin, place))
            begin, id_count = place, 0
        id_count += own
    return [*parts, slice(begin, len(id_counts))]

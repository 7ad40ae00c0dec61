from dataclasses import replace

import pytest

from index.ids import build_id_table

KNOWN, STRANGER = "familiar", "stranger"  # of one length


@pytest.mark.parametrize("others", [[], ["another", "one more"]])
def test_rows_of_collision_of_equal_length_is_unknown(others):
    table, of_stranger = build_id_table([KNOWN]), build_id_table([STRANGER])
    collided = replace(table, hashes=of_stranger.hashes)
    rows = collided.rows_of([*others, STRANGER, *others])
    assert rows.tolist() == [-1] * len(rows)

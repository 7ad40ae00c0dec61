from dataclasses import replace

import pytest

from index.ids import build_id_table

KNOWN, STRANGER = "familiar", "stranger"  # of one length


@pytest.mark.parametrize("others", [[], ["another", "one more"]])
def test_an_unknown_id_of_equal_hash_and_length_is_still_unknown(others):
    table, of_stranger = build_id_table([KNOWN]), build_id_table([STRANGER])
    collided = replace(table, hashes=of_stranger.hashes)
    found = collided.rows_of([*others, STRANGER, *others])
    assert found.tolist() == [-1] * len(found)

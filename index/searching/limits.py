"""Where searching changes its way: measured on a million items; tests choose small ones."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is little and what is much, counted in rows.

    few            are compared with a query one by one
    visited        stand in the lists that one search may visit while others wait
    looked_up      stand in the lists of a filter that is looked up while others wait
    many_excluded  are skipped by the index; fewer are dropped from what it found
    """

    few: int = 8_192
    visited: int = 131_072
    looked_up: int = 65_536
    many_excluded: int = 256


LIMITS = Limits()

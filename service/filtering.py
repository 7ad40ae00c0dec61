"""Filters: as a query string spells them, and whether the live bundle can be filtered so."""

from collections.abc import Iterable, Sequence

from service.bodies import InvalidRequestError
from service.schemas.shared import Fault
from service.state.bundle_watcher import Live


class UnknownFilterError(InvalidRequestError):
    """A filter names an attribute that the live bundle cannot be filtered by."""


def filter_of(conditions: Sequence[str]) -> dict[str, list[str]]:
    """Gather `attribute:value` texts by attribute; the first colon divides them."""
    gathered: dict[str, list[str]] = {}
    for condition in conditions:
        attribute, _, value = condition.partition(":")
        gathered.setdefault(attribute, []).append(value)
    return gathered


def refuse_unknown(live: Live, filters: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Refuse filters by what the bundle does not know, before anything waits for a turn.

    filters  the place of each, and the attributes that it names

    Raises UnknownFilterError with every fault.
    """
    known = live.bundle.manifest.filters
    expected = f"the bundle can be filtered by {', '.join(sorted(known)) or 'none'}"
    faults: list[Fault] = [
        {"place": f"{place}.{name}", "found": name, "expected": expected}
        for place, names in filters
        for name in names
        if name not in known
    ]
    if faults:
        raise UnknownFilterError(faults)

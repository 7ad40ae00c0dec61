"""How the watching of the denylist goes, for people and for Prometheus."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from index.denylist import DenylistWatcher
from service.schemas.state import DenyAnswer


def deny_told(deny: DenylistWatcher) -> DenyAnswer:
    """Put the state into the operator's words."""
    state, held = deny.state, deny.value
    told: DenyAnswer = {"status": state.status}
    if held:
        told["sequence"], told["count"] = held.sequence, len(held.ids)
    if state.reasons:
        told["reasons"] = list(state.reasons)
    return told


class DenyCollector(Collector):
    """Register it once; it keeps nothing of its own."""

    def __init__(self, deny: DenylistWatcher) -> None:
        self._deny = deny

    def collect(self) -> Iterator[Metric]:
        """Tell what is known at this moment."""
        state, held = self._deny.state, self._deny.value
        yield GaugeMetricFamily(
            "esans_denied_items", "Ids on the deny list.", value=len(held.ids) if held else 0
        )
        yield GaugeMetricFamily(
            "esans_deny_list_sequence",
            "Sequence of the deny list in force; 0: there is none.",
            value=held.sequence if held else 0,
        )
        yield GaugeMetricFamily(
            "esans_deny_list_up",
            "Whether the store of the deny list answered, with a list or with none.",
            value=float(state.status in ("following", "empty")),
        )
        changes = CounterMetricFamily(
            "esans_deny_list_changes",
            "Deny lists that came into force (live) or were turned down (refused).",
            labels=["result"],
        )
        changes.add_metric(["live"], state.changes)
        changes.add_metric(["refused"], state.refusals)
        yield changes
        yield CounterMetricFamily(
            "esans_deny_list_errors", "Looks at the store that failed.", value=state.errors
        )

"""Cluster map and denylist in Prometheus' words, read from their watchers when it asks."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from index.denylist import DenylistWatcher
from index.storage.watcher import WatchState
from service.cluster_watcher import Joined, LiveClusters


class WatcherCollector(Collector):
    """Register it once; it keeps nothing of its own."""

    def __init__(self, live_clusters: LiveClusters, deny: DenylistWatcher) -> None:
        self._live_clusters = live_clusters
        self._deny = deny

    def describe(self) -> Iterator[Metric]:
        """Name no metric: those of cluster maps are not there before the first bundle."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Tell what is known at this moment."""
        yield from cluster_map_metrics(self._live_clusters)
        yield from denylist_metrics(self._deny)


def cluster_map_metrics(live_clusters: LiveClusters) -> Iterator[Metric]:
    """Tell which map is used, and whether Redis answers where maps are there."""
    state, used = live_clusters.state(), live_clusters.current()
    if state:
        yield results_of(
            state,
            "esans_cluster_map_swaps",
            "Cluster maps taken (live) or turned down (refused).",
        )
    if state and live_clusters.kind == "redis":
        yield GaugeMetricFamily(
            "esans_redis_up",
            "Whether Redis answered when the follower of cluster maps last asked.",
            value=float(state.status not in ("unreachable", "stopped")),
        )
        yield CounterMetricFamily(
            "esans_redis_errors", "Looks at Redis that failed.", value=state.errors
        )
    if used:
        yield from used_map_metrics(used)


def used_map_metrics(used: Joined) -> Iterator[Metric]:
    """Tell which map is used."""
    info = GaugeMetricFamily(
        "esans_cluster_map_info", "The cluster map in use.", labels=["version", "source"]
    )
    info.add_metric([used.version, used.source], 1)
    yield info
    yield GaugeMetricFamily(
        "esans_cluster_map_age_seconds", "Since that map was made.", value=used.age_s
    )
    yield GaugeMetricFamily(
        "esans_cluster_map_items", "Items that it knows.", value=len(used.held.source)
    )


def denylist_metrics(deny: DenylistWatcher) -> Iterator[Metric]:
    """Tell which denylist is in force, and whether its store answers."""
    state, held = deny.state, deny.value
    yield GaugeMetricFamily(
        "esans_denied_items", "Ids on the denylist.", value=len(held.ids) if held else 0
    )
    yield GaugeMetricFamily(
        "esans_denylist_sequence",
        "Sequence of the denylist in force; 0: there is none.",
        value=held.sequence if held else 0,
    )
    yield GaugeMetricFamily(
        "esans_denylist_up",
        "Whether the store of the denylist answered, with a list or with none.",
        value=float(state.status in ("following", "empty")),
    )
    yield results_of(
        state,
        "esans_denylist_changes",
        "Denylists that came into force (live) or were turned down (refused).",
    )
    yield CounterMetricFamily(
        "esans_denylist_errors", "Looks at the store that failed.", value=state.errors
    )


def results_of(state: WatchState, name: str, meaning: str) -> Metric:
    """Count what a watcher took and turned down."""
    results = CounterMetricFamily(name, meaning, labels=["result"])
    results.add_metric(["live"], state.changes)
    results.add_metric(["rejected"], state.refusals)
    return results

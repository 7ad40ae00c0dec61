"""Prometheus collector of the watchers of bundle, cluster map and denylist, read at each scrape."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from index.denylist import DenylistWatcher
from index.storage.watcher import WatchState
from service.bundle_watcher import BundleWatcher
from service.cluster_watcher import ClusterWatcher, JoinedClusterMap


class WatcherCollector(Collector):
    """Collector that renders the watchers' current state."""

    def __init__(
        self, live_bundle: BundleWatcher, live_clusters: ClusterWatcher, denylist: DenylistWatcher
    ) -> None:
        self._live_bundle = live_bundle
        self._live_clusters = live_clusters
        self._denylist = denylist

    def describe(self) -> Iterator[Metric]:
        """Describe no metric: those of cluster maps are absent before the first bundle."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        yield build_flag(
            "esans_bundle_following",
            "Whether the current bundle is the live one: 1 or 0.",
            self._live_bundle.state.status == "following",
        )
        yield from cluster_map_metrics(self._live_clusters)
        yield from denylist_metrics(self._denylist)


def cluster_map_metrics(live_clusters: ClusterWatcher) -> Iterator[Metric]:
    """Yield the metrics of the map in use and, if maps are in Redis, of its polls."""
    state, used = live_clusters.state(), live_clusters.current()
    if state:
        yield count_results(
            state,
            "esans_cluster_map_swaps",
            "Cluster maps that went live or were rejected, by result.",
        )
        yield build_flag(
            "esans_cluster_map_rejected",
            "Whether the published cluster map is rejected: 1 or 0.",
            state.status == "rejected",
        )
    if state and live_clusters.store_kind == "redis":
        yield build_flag(
            "esans_redis_up",
            "Whether Redis answered the last poll for cluster maps: 1 or 0.",
            state.status not in ("unreachable", "stopped"),
        )
        yield CounterMetricFamily(
            "esans_redis_errors", "Failed polls of Redis for cluster maps.", value=state.errors
        )
    if used:
        yield from used_map_metrics(used)


def used_map_metrics(used: JoinedClusterMap) -> Iterator[Metric]:
    """Yield the metrics of the map in use."""
    info = GaugeMetricFamily(
        "esans_cluster_map_info",
        "Version and source of the cluster map in use; the value is always 1.",
        labels=["version", "source"],
    )
    info.add_metric([used.version, used.source], 1)
    yield info
    yield GaugeMetricFamily(
        "esans_cluster_map_age_seconds",
        "Seconds since the cluster map in use was built.",
        value=used.age_s,
    )
    yield GaugeMetricFamily(
        "esans_cluster_map_items", "Items in the cluster map in use.", value=len(used.held.source)
    )


def denylist_metrics(watcher: DenylistWatcher) -> Iterator[Metric]:
    """Yield the metrics of the denylist in force and of its polls."""
    state, denylist = watcher.state, watcher.value
    yield GaugeMetricFamily(
        "esans_denied_items", "Ids on the denylist.", value=len(denylist.ids) if denylist else 0
    )
    yield GaugeMetricFamily(
        "esans_denylist_sequence",
        "Sequence number of the denylist in force; 0 if there is none.",
        value=denylist.sequence if denylist else 0,
    )
    yield build_flag(
        "esans_denylist_up",
        "Whether the denylist store answered the last poll, even if it is empty: 1 or 0.",
        state.status not in ("unreachable", "stopped"),
    )
    yield build_flag(
        "esans_denylist_rejected",
        "Whether the stored denylist is rejected: 1 or 0.",
        state.status == "rejected",
    )
    yield count_results(
        state, "esans_denylist_changes", "Denylists that went live or were rejected, by result."
    )
    yield CounterMetricFamily(
        "esans_denylist_errors", "Failed polls of the denylist store.", value=state.errors
    )


def build_flag(name: str, help_text: str, is_set: bool) -> Metric:
    """Return a gauge that is 1 or 0."""
    return GaugeMetricFamily(name, help_text, value=float(is_set))


def count_results(state: WatchState, name: str, help_text: str) -> Metric:
    """Return the counter of values that a watcher accepted and rejected."""
    results = CounterMetricFamily(name, help_text, labels=["result"])
    results.add_metric(["live"], state.changes)
    results.add_metric(["rejected"], state.rejections)
    return results

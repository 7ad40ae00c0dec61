"""The cluster map in Prometheus' words, read from its follower when Prometheus asks."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from index.storage.watcher import WatchState
from service.state.cluster_watcher import Joined, LiveClusters


class ClusterCollector(Collector):
    """Register it once; it keeps nothing of its own."""

    def __init__(self, live_clusters: LiveClusters) -> None:
        self._live_clusters = live_clusters

    def describe(self) -> Iterator[Metric]:
        """Name no metric: none is there before the first bundle."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Tell what is known at this moment."""
        state, joined = self._live_clusters.state(), self._live_clusters.current()
        if state:
            yield swaps_of(state)
            if self._live_clusters.kind == "redis":
                yield from redis_of(state)
        if joined:
            yield from map_of(joined)


def swaps_of(state: WatchState) -> Metric:
    """Count maps taken and turned down."""
    swaps = CounterMetricFamily(
        "esans_cluster_map_swaps",
        "Cluster maps taken (live) or turned down (refused).",
        labels=["result"],
    )
    swaps.add_metric(["live"], state.changes)
    swaps.add_metric(["refused"], state.refusals)
    return swaps


def redis_of(state: WatchState) -> Iterator[Metric]:
    """Tell whether Redis answered the last look, and how often it did not."""
    yield GaugeMetricFamily(
        "esans_redis_up",
        "Whether Redis answered when the follower of cluster maps last asked.",
        value=float(state.status not in ("unreachable", "stopped")),
    )
    yield CounterMetricFamily(
        "esans_redis_errors",
        "Looks at Redis that failed.",
        value=state.errors,
    )


def map_of(joined: Joined) -> Iterator[Metric]:
    """Tell which map is used."""
    info = GaugeMetricFamily(
        "esans_cluster_map_info", "The cluster map in use.", labels=["version", "source"]
    )
    info.add_metric([joined.version, joined.source], 1)
    yield info
    yield GaugeMetricFamily(
        "esans_cluster_map_age_seconds", "Since that map was made.", value=joined.age_s
    )
    yield GaugeMetricFamily(
        "esans_cluster_map_items", "Items that it knows.", value=len(joined.held.source)
    )

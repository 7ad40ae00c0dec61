"""Every error that a caller or an operator can cause, and what to do about it.

EsansError                      the root: catch this to catch them all
├── ConfigError                 a configuration that cannot be used
├── FaultsError                 several faults of one place, told together
│   ├── DatasetError            the dataset folder breaks a rule
│   ├── InvalidClusterMapError   a cluster map is missing, changed or disagrees with itself
│   └── InvalidDenylistError     a denylist is damaged, or none at all
├── TrainingError               training cannot go on (a loss that is not finite ...)
├── BundleError                 something about what is published
│   ├── NoBundleError           nothing is published yet
│   │   └── UnknownVersionError  not under that name, or none before the current one
│   ├── InvalidBundleError       files are missing, changed or disagree (a FaultsError too)
│   ├── RejectedBundleError      a service does not take it, and says why (a FaultsError too)
│   ├── ReadOnlyBundlesError    the folder may be read, but not written from here
│   └── WorseThanPopularityError  measured below popularity, so not made current
├── ClusterStoreError           something about the store of cluster maps, or of the denylist
│   ├── StoreUnreachableError   it does not answer, or not us
│   ├── StoreFullError          it has no room for a map
│   ├── ReadOnlyStoreError      it may be read, but not written from here
│   ├── NoClusterMapError       nothing is published in it, or not that version
│   ├── IncompatibleClusterMapError  the map is of another catalogue
│   └── NoDenylistError         none is set in it, and it may have lost one
└── RequestError                a question that cannot be answered as asked
    ├── UnknownAttributeError   it filters by what the bundle cannot be filtered by
    ├── UnknownItemError        it is about an item that the bundle does not hold
    └── TooManyDeniedError      more items are to be denied than a denylist holds

Messages have four parts: where, what was found, what was expected, what to do.
A programmer's mistake at a public door is a ValueError, never one of these.
"""

from collections.abc import Sequence


class EsansError(Exception):
    """The root of all errors that a caller or an operator can cause."""


class ConfigError(EsansError):
    """A configuration cannot be used: an unknown key, a value out of range."""


class FaultsError(EsansError):
    """Several faults of one place, reported together so that one repair round is enough."""

    def __init__(self, place: str, faults: Sequence[str]) -> None:
        self.place = place
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        count = len(self.faults)
        super().__init__(f"{place}: {count} fault{'s' if count != 1 else ''} found\n{lines}")


class DatasetError(FaultsError):
    """The dataset folder breaks one or more rules."""


class InvalidClusterMapError(FaultsError):
    """A saved or received cluster map is missing, changed, or disagrees with itself."""


class InvalidDenylistError(FaultsError):
    """What is stored as a denylist is damaged, or none at all."""


class TrainingError(EsansError):
    """Training cannot go on."""


class BundleError(EsansError):
    """Something about what is published is not as it must be."""


class NoBundleError(BundleError):
    """Nothing is published yet."""


class UnknownVersionError(NoBundleError):
    """Nothing is published under that name, or nothing before the current one."""


class InvalidBundleError(FaultsError, BundleError):
    """Files of a bundle are missing, changed, or disagree with each other."""


class RejectedBundleError(FaultsError, BundleError):
    """A service was told to take a bundle and does not."""


class ReadOnlyBundlesError(BundleError):
    """The folder of bundles may be read from here, but not written."""


class WorseThanPopularityError(BundleError):
    """A model that popularity beats is not made current unless forced."""


class ClusterStoreError(EsansError):
    """The store of cluster maps, or of the denylist, cannot do what it was asked."""


class StoreUnreachableError(ClusterStoreError):
    """The store does not answer: refused, timed out, still loading, a wrong password."""


class StoreFullError(ClusterStoreError):
    """The store has no room left for a map."""


class ReadOnlyStoreError(ClusterStoreError):
    """The store may be read from here, but not written."""


class NoClusterMapError(ClusterStoreError):
    """Nothing is published in the store, or not under that version."""


class IncompatibleClusterMapError(ClusterStoreError):
    """A map shares too few items with the catalogue that it was to be joined with."""


class NoDenylistError(ClusterStoreError):
    """No denylist is set in the store, and it may have lost one."""


class RequestError(EsansError):
    """A question that cannot be answered as it was asked."""


class UnknownAttributeError(RequestError):
    """A question filters by an attribute that the bundle cannot be filtered by."""


class UnknownItemError(RequestError):
    """A question is about an item that the bundle does not hold."""


class TooManyDeniedError(RequestError):
    """More items are to be denied than a denylist holds."""

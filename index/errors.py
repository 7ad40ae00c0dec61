"""Exceptions for errors that a caller or an operator can cause and correct.

EsansError                      base class of all the others
├── ConfigError                 invalid configuration
├── FaultsError                 several faults of one input, reported together
│   ├── DatasetError            invalid dataset folder
│   ├── InvalidClusterMapError  missing, damaged or inconsistent cluster map
│   └── InvalidDenylistError    damaged denylist
├── TrainingError               training cannot continue (a loss that is not finite, for example)
├── BundleError                 base class of errors about bundles
│   ├── NoBundleError           no bundle is published
│   │   └── UnknownVersionError  unknown version, or no previous version
│   ├── InvalidBundleError      missing, damaged or inconsistent files (also a FaultsError)
│   ├── UnavailableBundleError  the machine cannot open the bundle now: no memory, an I/O error
│   ├── RejectedBundleError     a service did not load the requested bundle (also a FaultsError)
│   ├── ReadOnlyBundlesError    the bundle registry is read-only here
│   └── WorseThanPopularityError  the popularity baseline has the better metrics
├── ClusterStoreError           base class of errors about the store of cluster maps and denylist
│   ├── StoreUnreachableError   connection or authentication failed
│   ├── StoreFullError          out of memory or disk space
│   ├── ReadOnlyStoreError      the store is read-only here
│   ├── NoClusterMapError       no cluster map is published, or not under this version
│   ├── IncompatibleClusterMapError  the map covers another catalogue
│   └── NoDenylistError         the store holds no denylist and may have lost one
└── RequestError                base class of errors about a request
    ├── UnknownAttributeError   filter attribute that the bundle does not have
    ├── UnknownItemError        item id that the bundle does not have
    └── TooManyDeniedError      more ids than a denylist may hold

Each class has a stable `code`, which is also the problem type of the HTTP API. A message says
where the error is, what was found, what was expected and how to correct it. Misuse of the Python
API raises ValueError instead.
"""

import errno
import os
from collections.abc import Sequence
from typing import ClassVar

OF_INPUT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
OF_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.ESTALE)
MACHINE_TEXTS = (*map(os.strerror, OF_MACHINE), "bad_alloc", "Failed to allocate")


def is_machine_fault(error: BaseException) -> bool:
    """Return whether an error is of the machine and may pass, not of the files that were read.

    FAISS and onnxruntime raise RuntimeError with the text of the system's error.
    """
    if isinstance(error, OSError):
        return error.errno not in OF_INPUT
    return isinstance(error, MemoryError) or any(text in str(error) for text in MACHINE_TEXTS)


class EsansError(Exception):
    """Base class of all errors that a caller or an operator can cause.

    Attributes:
        code: Stable identifier of the error class, kebab-case.
    """

    code: ClassVar[str] = "esans"


class ConfigError(EsansError):
    """Invalid configuration: an unknown key, or a value out of range."""

    code = "config"


class FaultsError(EsansError):
    """Several faults of one input, reported together so that one round of repair is enough."""

    code = "faults"

    def __init__(self, location: str, faults: Sequence[str]) -> None:
        self.location = location
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        count = len(self.faults)
        super().__init__(f"{location}: {count} fault{'s' if count != 1 else ''} found\n{lines}")


class DatasetError(FaultsError):
    """The dataset folder is invalid."""

    code = "dataset"


class InvalidClusterMapError(FaultsError):
    """A saved or received cluster map is missing, damaged or inconsistent."""

    code = "invalid-cluster-map"


class InvalidDenylistError(FaultsError):
    """The stored denylist is damaged."""

    code = "invalid-denylist"


class TrainingError(EsansError):
    """Training cannot continue."""

    code = "training"


class BundleError(EsansError):
    """Base class of errors about published bundles."""

    code = "bundle"


class NoBundleError(BundleError):
    """No bundle is published."""

    code = "no-bundle"


class UnknownVersionError(NoBundleError):
    """The requested bundle version does not exist, or there is no previous version."""

    code = "unknown-version"


class InvalidBundleError(FaultsError, BundleError):
    """Files of a bundle are missing, damaged or inconsistent."""

    code = "invalid-bundle"


class UnavailableBundleError(BundleError):
    """This machine cannot open the bundle now, for example for lack of memory."""

    code = "unavailable-bundle"


class RejectedBundleError(FaultsError, BundleError):
    """A service did not load the requested bundle."""

    code = "rejected-bundle"


class ReadOnlyBundlesError(BundleError):
    """The bundle registry is read-only for this process."""

    code = "read-only-bundles"


class WorseThanPopularityError(BundleError):
    """The popularity baseline has better metrics, so the bundle does not become current."""

    code = "worse-than-popularity"


class ClusterStoreError(EsansError):
    """Base class of errors about the store of cluster maps and the denylist."""

    code = "cluster-store"


class StoreUnreachableError(ClusterStoreError):
    """Connection refused, timeout, server still loading, or authentication failed."""

    code = "store-unreachable"


class StoreFullError(ClusterStoreError):
    """The store has no space left."""

    code = "store-full"


class ReadOnlyStoreError(ClusterStoreError):
    """The store is read-only for this process."""

    code = "read-only-store"


class NoClusterMapError(ClusterStoreError):
    """No cluster map is published, or not under the requested version."""

    code = "no-cluster-map"


class IncompatibleClusterMapError(ClusterStoreError):
    """A cluster map shares too few items with the catalogue."""

    code = "incompatible-cluster-map"


class NoDenylistError(ClusterStoreError):
    """The store holds no denylist and may have lost one."""

    code = "no-denylist"


class RequestError(EsansError):
    """Base class of errors about a request."""

    code = "request"


class UnknownAttributeError(RequestError):
    """A filter names an attribute that the bundle does not have."""

    code = "unknown-attribute"


class UnknownItemError(RequestError):
    """A request names an item that the bundle does not have."""

    code = "unknown-item"


class TooManyDeniedError(RequestError):
    """A change would put more items on the denylist than it may hold."""

    code = "too-many-denied"

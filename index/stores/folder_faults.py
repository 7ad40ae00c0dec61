"""What the file system says of a folder of cluster maps, as an error of ours."""

import errno

from index.errors import (
    ClusterStoreError,
    ReadOnlyStoreError,
    StoreFullError,
    StoreUnreachableError,
)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def reading_fault(place: str, error: OSError) -> ClusterStoreError:
    """Say that a folder cannot be read."""
    return StoreUnreachableError(
        f"{_told(place, error)}; expected a folder of cluster maps; make it readable, and "
        "writable for whoever publishes"
    )


def writing_fault(place: str, error: OSError) -> ClusterStoreError:
    """Say that a folder cannot be written: it is full, or not ours to write, or unfit."""
    if error.errno in FULL:
        return StoreFullError(
            f"{_told(place, error)}; expected room for a map; free some, or remove old maps "
            "with `python -m index clusters prune`"
        )
    if error.errno in READ_ONLY:
        return ReadOnlyStoreError(
            f"{_told(place, error)}; expected the right to write there; publish, or run "
            "`python -m index clusters pin | unpin | rollback | prune --bundles DIR`, where "
            "the folder may be written"
        )
    return reading_fault(place, error)


def _told(place: str, error: OSError) -> str:
    return f"{place}: {error.strerror or error} ({error.filename or 'no file'})"

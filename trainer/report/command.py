"""`python -m trainer report`: the file written, and never into a bundle."""

from pathlib import Path

from index.bundle.manifest import MANIFEST
from index.bundle.reader import open_bundle
from index.errors import ConfigError
from index.shelf import Shelf
from trainer.report.run_report import report_of_run


def write_run_report(bundles: Path, version: str | None, out: Path) -> None:
    """Write the report of a published run; of the current one where no version is named.

    Raises NoBundleError, FaultyBundleError; ConfigError if `out` is no place for it.
    """
    refuse_unfit_place(out)
    shelf = Shelf(bundles)
    folder = shelf.current() if version is None else shelf.path_of(version)
    write(report_of_run(open_bundle(folder)), out)


def refuse_unfit_place(out: Path) -> None:
    """Raise ConfigError where the report would land in a bundle, or on a folder."""
    place = out.resolve()
    bundle = next((one for one in place.parents if (one / MANIFEST).is_file()), None)
    if bundle is not None:
        raise ConfigError(
            f"--out {out}: lies in the bundle {bundle}, which is never written into again; "
            "name a file outside of it"
        )
    if place.is_dir():
        raise ConfigError(f"--out {out}: is a folder, expected a file to write")


def write(text: str, out: Path) -> None:
    """Write the file, and the folders above it; raises ConfigError where that fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be written ({error.strerror}); name another file"
        ) from error

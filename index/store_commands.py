"""Commands `python -m index clusters` and `python -m index denylist`.

Each command returns its output; `__main__` prints it.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from index.cluster_map_registry import ClusterMapInfo, ClusterMapRegistry, ClusterPointer
from index.cluster_map_stores import FOLDER, open_cluster_maps
from index.denylist import FILE, Denylist, DenylistStore, open_denylist
from index.errors import ConfigError, InvalidClusterMapError, NoDenylistError
from index.fsio import parse_path
from index.ids import MAX_ID_LENGTH
from index.storage.address import (
    FILE_VARIABLE,
    NAMESPACE,
    NAMESPACE_VARIABLE,
    URL_VARIABLE,
    get_namespace,
    load_redis_url,
)

ClusterCommand = Callable[[ClusterMapRegistry, argparse.Namespace], str]
DenylistCommand = Callable[[DenylistStore, argparse.Namespace], str]


def add_cluster_commands(commands: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add the commands `list`, `pin`, `unpin`, `rollback` and `prune`."""
    for name, (command, summary) in CLUSTER_COMMANDS.items():
        parser = commands.add_parser(name, help=summary, description=command.__doc__)
        parser.set_defaults(run=run_cluster_command, command=command)
        add_store_options(parser, "the maps", f"the maps are in {FOLDER}/")
        if command in WITHOUT_VERSION:
            add_version_argument(parser, WITHOUT_VERSION[command])
        if command is prune:
            add_keep_option(parser)


def run_cluster_command(parsed: argparse.Namespace) -> str:
    """Open the registry and run a command on it."""
    url, bundles, namespace = resolve_store(parsed, "cluster maps")
    command: ClusterCommand = parsed.command
    return command(open_cluster_maps(url, bundles / FOLDER, namespace), parsed)


def add_denylist_commands(commands: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add the commands `show`, `list`, `set`, `add` and `remove`."""
    for name, (command, summary) in DENYLIST_COMMANDS.items():
        parser = commands.add_parser(name, help=summary, description=command.__doc__)
        parser.set_defaults(run=run_denylist_command, command=command)
        add_store_options(parser, "the list", f"the list is its file `{FILE}`")
        if command is not show_denylist:
            parser.add_argument(
                "--json-lines",
                action="store_true",
                help="each id as a JSON string, which allows line breaks in ids",
            )
        if command in (set_ids, add_ids, remove_ids):
            parser.add_argument("ids", nargs="*", metavar="ID", help="an item id")
            parser.add_argument(
                "--file", metavar="FILE", help="a file with one id per line; - reads standard input"
            )


def run_denylist_command(parsed: argparse.Namespace) -> str:
    """Open the denylist and run a command on it."""
    url, bundles, namespace = resolve_store(parsed, "denylist")
    command: DenylistCommand = parsed.command
    return command(open_denylist(url, bundles / FILE, namespace), parsed)


def add_version_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the optional argument `VERSION`."""
    summary = f"the version (default: {default})"
    parser.add_argument("version", nargs="?", metavar="VERSION", help=summary)


def add_keep_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--keep`."""
    summary = "how many of the newest to keep (default: 3)"
    parser.add_argument("--keep", type=_parse_count, default=3, metavar="COUNT", help=summary)


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, 0 or more")
    return int(text)


def show_maps(registry: ClusterMapRegistry, _: argparse.Namespace) -> str:
    """List the cluster maps, oldest first. The current one is marked."""
    infos, pointer, faults = registry.list_maps(), None, []
    try:
        pointer = registry.pointer()
    except InvalidClusterMapError as error:  # repairing it needs a version
        faults = [str(error)]
    if not infos and not faults:
        raise registry.no_map_error()
    return "\n".join([registry.location, *(_render_line(info, pointer) for info in infos), *faults])


def pin(registry: ClusterMapRegistry, parsed: argparse.Namespace) -> str:
    """Pin a version, by default the current one, and make it current.

    Maps published while a pin exists are stored, but do not become current.
    """
    pointer = registry.pin(parsed.version)
    return f"{pointer.version} is current and pinned, until `clusters unpin`"


def unpin(registry: ClusterMapRegistry, _: argparse.Namespace) -> str:
    """Remove the pin: the next published map becomes current."""
    return f"{registry.unpin().version} is current, until another map is published"


def roll_back(registry: ClusterMapRegistry, parsed: argparse.Namespace) -> str:
    """Make a version, by default the previous one, current.

    Two rollbacks without a version return to the original map. A pin stays; without one, the
    next published map becomes current.
    """
    pointer = registry.roll_back(parsed.version)
    suffix = " (pinned)" if pointer.pinned else ""
    return f"current is now {pointer.version}{suffix}; previous {pointer.previous or 'none'}"


def prune(registry: ClusterMapRegistry, parsed: argparse.Namespace) -> str:
    """Remove all but the newest maps. The current and the previous one always stay."""
    removed = registry.prune(parsed.keep)
    return "\n".join(f"removed {version}" for version in removed) or "nothing to remove"


CLUSTER_COMMANDS: dict[str, tuple[ClusterCommand, str]] = {
    "list": (show_maps, "list the maps; the current one is marked"),
    "pin": (pin, "keep a map current, whatever is published"),
    "unpin": (unpin, "let published maps become current again"),
    "rollback": (roll_back, "make an older map current"),
    "prune": (prune, "remove old maps"),
}
WITHOUT_VERSION = {pin: "the current one", roll_back: "the previous one"}


def _render_line(info: ClusterMapInfo, pointer: ClusterPointer | None) -> str:
    mark = "*" if info.is_current else " "
    line = f"{mark} {info.version}  {info.items:,} items  {info.level_1_codes:,} clusters  "
    return f"{line}{info.created_at}  {_render_status(info, pointer)}"


def _render_status(info: ClusterMapInfo, pointer: ClusterPointer | None) -> str:
    if info.is_current:
        return "current, pinned" if pointer and pointer.pinned else "current"
    if info.is_previous:
        return "previous"
    if info.expires_in_s is None:
        return "kept"
    return f"expires in {info.expires_in_s / 60:.0f} min"


def show_denylist(store: DenylistStore, _: argparse.Namespace) -> str:
    """Show the number of denied items and the sequence."""
    return f"{store.location}\n{_summary(_load(store))}"


def list_ids(store: DenylistStore, parsed: argparse.Namespace) -> str:
    """Print the ids, one per line, in the format of `--file`."""
    ids = _load(store).ids
    if not parsed.json_lines and any("\n" in item_id or "\r" in item_id for item_id in ids):
        raise ConfigError(
            f"{store.location}: found an id with a line break, expected one id per line; use "
            "--json-lines"
        )
    return "\n".join(json.dumps(item_id) if parsed.json_lines else item_id for item_id in ids)


def set_ids(store: DenylistStore, parsed: argparse.Namespace) -> str:
    """Replace the denylist by these ids; an empty file clears it."""
    return _summary(store.replace(_parse_ids(parsed), time.time()))


def add_ids(store: DenylistStore, parsed: argparse.Namespace) -> str:
    """Add ids to the denylist."""
    return _summary(store.update(_parse_ids(parsed), (), time.time()))


def remove_ids(store: DenylistStore, parsed: argparse.Namespace) -> str:
    """Remove ids from the denylist."""
    return _summary(store.update((), _parse_ids(parsed), time.time()))


DENYLIST_COMMANDS: dict[str, tuple[DenylistCommand, str]] = {
    "show": (show_denylist, "show the number of denied items"),
    "list": (list_ids, "print the denied ids"),
    "set": (set_ids, "replace the denylist by these ids"),
    "add": (add_ids, "add ids to the denylist"),
    "remove": (remove_ids, "remove ids from the denylist"),
}


def _load(store: DenylistStore) -> Denylist:
    denylist = store.load()
    if denylist is None:
        raise NoDenylistError(
            f"{store.location}: no denylist is set; create one with `python -m index denylist set`"
        )
    return denylist


def _summary(denylist: Denylist) -> str:
    return f"{len(denylist.ids):,} items are denied (sequence {denylist.sequence})"


def _parse_ids(parsed: argparse.Namespace) -> list[str]:
    """Parse the ids of the command line or of the file.

    Raises:
        ConfigError: Both or neither are present, or an id is invalid.
    """
    if bool(parsed.ids) == (parsed.file is not None):
        raise ConfigError("denylist: expected either ids or --file FILE; pass one of them")
    source = "command line" if parsed.ids else parsed.file
    ids = parsed.ids or _read_lines(parsed.file)
    if parsed.json_lines:
        ids = [_parse_json_id(line, source) for line in ids]
    for item_id in ids:
        if not 1 <= len(item_id) <= MAX_ID_LENGTH or not _is_valid_unicode(item_id):
            raise ConfigError(
                f"{source}: found {item_id[:60]!r}, expected an id of 1 to {MAX_ID_LENGTH} "
                "characters; correct it"
            )
    return list(ids)


def _read_lines(file: str) -> Sequence[str]:
    """Read the non-empty lines of a file, without LF or CRLF."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror}); expected a file with one id per line"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: invalid UTF-8 ({error}), expected text; save it as UTF-8"
        ) from error
    return [line for raw in text.split("\n") if (line := raw.removesuffix("\r"))]


def _parse_json_id(line: str, source: str) -> str:
    try:
        item_id = json.loads(line)
    except ValueError:
        item_id = None
    if not isinstance(item_id, str):
        raise ConfigError(f"{source}: found {line[:60]!r}, expected a JSON string; correct it")
    return item_id


def _is_valid_unicode(text: str) -> bool:
    """Whether it has no lone surrogate, which stands for an undecodable argument byte."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def add_store_options(parser: argparse.ArgumentParser, content: str, layout: str) -> None:
    """Add the options `--redis`, `--bundles` and `--namespace`, which `resolve_store` reads.

    Args:
        parser: Parser to add them to.
        content: What the store holds, as in "the maps".
        layout: Where that is in a bundles folder, as in "the maps are in clusters/".
    """
    group = parser.add_mutually_exclusive_group()
    add_redis_options(parser, group, content)
    group.add_argument(
        "--bundles",
        type=parse_path,
        metavar="BUNDLES",
        help=f"the bundles folder, if Redis is not used; {layout}",
    )


def add_redis_options(parser: argparse.ArgumentParser, group: Any, content: str) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add the option `--redis` to a group, and `--namespace` to the parser."""
    group.add_argument(
        "--redis",
        metavar="URL",
        help=f"the Redis that holds {content}; default: {URL_VARIABLE}, which process lists do "
        f"not show, or the file that {FILE_VARIABLE} names",
    )
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        help=f"prefix of the keys in Redis; default: {NAMESPACE_VARIABLE}, else {NAMESPACE}",
    )


def resolve_store(parsed: argparse.Namespace, content: str) -> tuple[str | None, Path, str]:
    """Return the Redis URL, if any, the bundles folder and the namespace.

    Raises:
        ConfigError: Neither the options nor the environment locate the store.
    """
    url = parsed.redis or (None if parsed.bundles else load_redis_url(os.environ))
    if not url and not parsed.bundles:
        raise ConfigError(
            f"{content}: no store is configured, expected --redis URL, --bundles DIR or "
            f"{URL_VARIABLE} (or {FILE_VARIABLE}); set one of them"
        )
    return url, parsed.bundles or Path(), parsed.namespace or get_namespace(os.environ)

"""`python -m index deny`: look at the deny list and change it.

Each command returns what to tell a person; `__main__` says it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from index.deny.deny_list import ID_LENGTH, DenyList
from index.deny.store import FILE, DenyStore, alter, open_deny_store, replace_all
from index.errors import ConfigError, NoDenyListError
from index.stores.options import add_store_options, store_meant

Command = Callable[[DenyStore, argparse.Namespace], str]


def add_deny_commands(commands: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Describe `show`, `list`, `set`, `add` and `remove`."""
    for command, (name, told) in HELP.items():
        parser = commands.add_parser(name, help=told, description=command.__doc__)
        parser.set_defaults(deny_command=command)
        add_store_options(parser, "the list", f"the list is its file `{FILE}`")
        if command is not show:
            parser.add_argument(
                "--json-lines",
                action="store_true",
                help="each id as a JSON text, so that one with a line break in it survives",
            )
        if command in CHANGES:
            parser.add_argument("ids", nargs="*", metavar="ID", help="an item id")
            parser.add_argument(
                "--file", metavar="FILE", help="a file of ids, one a line; - reads the input"
            )


def run_deny_command(parsed: argparse.Namespace) -> str:
    """Open the store that is meant, and run a command on it."""
    meant = store_meant(parsed, "deny list")
    store = open_deny_store(meant.url, meant.bundles / FILE, meant.namespace)
    command: Command = parsed.deny_command
    return command(store, parsed)


def show(store: DenyStore, _: argparse.Namespace) -> str:
    """Say how many items are denied, and since which change."""
    return f"{store.place}\n{_told(_read(store))}"


def list_ids(store: DenyStore, parsed: argparse.Namespace) -> str:
    """Print the ids, one a line, as `--file` reads them."""
    ids = _read(store).ids
    if not parsed.json_lines and any("\n" in one or "\r" in one for one in ids):
        raise ConfigError(
            f"{store.place}: found an id with a line break in it, expected one a line; ask "
            "with --json-lines"
        )
    return "\n".join(json.dumps(one) if parsed.json_lines else one for one in ids)


def set_ids(store: DenyStore, parsed: argparse.Namespace) -> str:
    """Deny these items and no others; with an empty file, none."""
    return _told(replace_all(store, ids_given(parsed), time.time()))


def add(store: DenyStore, parsed: argparse.Namespace) -> str:
    """Deny these items, too."""
    return _told(alter(store, ids_given(parsed), (), time.time()))


def remove(store: DenyStore, parsed: argparse.Namespace) -> str:
    """Deny these items no longer."""
    return _told(alter(store, (), ids_given(parsed), time.time()))


HELP: dict[Command, tuple[str, str]] = {
    show: ("show", "how many items are denied"),
    list_ids: ("list", "print the denied ids"),
    set_ids: ("set", "deny these items and no others"),
    add: ("add", "deny these items, too"),
    remove: ("remove", "deny these items no longer"),
}
CHANGES = (set_ids, add, remove)


def _read(store: DenyStore) -> DenyList:
    found = store.read()
    if found is None:
        raise NoDenyListError(
            f"{store.place}: holds no deny list; begin one with `python -m index deny set`"
        )
    return found


def _told(deny_list: DenyList) -> str:
    return f"{len(deny_list.ids):,} items are denied (sequence {deny_list.sequence})"


def ids_given(parsed: argparse.Namespace) -> list[str]:
    """Return the ids of the command line, or those of the file.

    Raises ConfigError if both or none are given, or one is no id.
    """
    if bool(parsed.ids) == (parsed.file is not None):
        raise ConfigError("deny list: expected ids, or --file FILE; give one of the two")
    place = "the command line" if parsed.ids else parsed.file
    ids = parsed.ids or _lines(_content(parsed.file), place)
    if parsed.json_lines:
        ids = [_from_json(one, place) for one in ids]
    for one in ids:
        if not 1 <= len(one) <= ID_LENGTH or not _is_text(one):
            raise ConfigError(
                f"{place}: found {one[:60]!r}, expected an id of 1 to {ID_LENGTH} characters "
                "of text; correct it"
            )
    return list(ids)


def _content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror}); expected a file of ids, one a line"
        ) from error


def _lines(content: bytes, place: str) -> Sequence[str]:
    """Return the lines that hold something, as they are; a CR before the line's end is none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{place}: found bytes that are no UTF-8 ({error}); write it as UTF-8"
        ) from error
    return [line for one in text.split("\n") if (line := one.removesuffix("\r"))]


def _from_json(line: str, place: str) -> str:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, str):
        raise ConfigError(f"{place}: found {line[:60]!r}, expected a JSON text; correct it")
    return found


def _is_text(one: str) -> bool:
    """Tell whether it has no half of a pair, as bytes of the command line that are no text."""
    return not any("\ud800" <= sign <= "\udfff" for sign in one)

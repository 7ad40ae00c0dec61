"""`python -m service`: serve the current bundle of a folder, in one process."""

import argparse
import gc
import logging
import os
import resource
import signal
import socket
import sys
from typing import NoReturn

from index.errors import ConfigError
from service.logging_config import configure_logging, fields
from service.settings import Settings, describe_settings, load_settings


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; return the exit status.

    0 stopped in peace, 1 no port or stopped by a second signal, 2 bad settings
    """
    # read by OpenMP and OpenBLAS when they are first imported, so before the app is
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parsed = build_parser().parse_args(arguments)
    overrides = {name: value for name, value in vars(parsed).items() if value is not None}
    try:
        settings = load_settings(overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    configure_logging(settings.log_level)
    return serve(settings)


def build_parser() -> argparse.ArgumentParser:
    """Describe the options; each is a setting, spoken on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Answer /retrieve from the current bundle of a folder, and follow it: the "
        "port opens at once, /readyz says when a bundle is live. One process; for more, start "
        "replicas.",
        epilog=f"Every setting is an environment variable, too; an option here overrides it."
        f"\n\n{describe_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundles", metavar="DIR", help="the folder of bundles")
    parser.add_argument("--host", dest="http_host", metavar="NAME", help="where to listen")
    parser.add_argument(
        "--port",
        dest="http_port",
        metavar="PORT",
        help="0 takes a free one; the line with the event `listening` tells which",
    )
    return parser


def serve(settings: Settings) -> int:
    """Listen and answer until a signal; return the exit status."""
    import uvicorn  # late, as is the app: after the threads are set, and not for --help

    from service.app import create_app
    from service.server import Connection, DrainingServer, Lifetime

    log = logging.getLogger("service")
    log.info("settings", extra=fields(**settings.model_dump(mode="json")))
    lifetime = Lifetime()
    try:
        app = create_app(settings, lifetime)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        listener = listen(settings.http_host, settings.http_port)
    except OSError as error:
        place = f"{settings.http_host}:{settings.http_port}"
        print(
            f"{place}: cannot listen ({error}); choose a free port, or an address of this machine",
            file=sys.stderr,
        )
        return 1
    raise_file_limit()
    collect_seldom()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        http=Connection,
        ws="none",
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    log.info("listening", extra=fields(url=url_of(listener)))
    server = DrainingServer(config, lifetime, settings.shutdown_delay_s, settings.request_timeout_s)
    server.run(sockets=[listener])
    return 1 if server.force_exit else 0


def raise_file_limit() -> None:
    """Let as many connections be open as the system allows; the usual 1,024 are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def collect_seldom() -> None:
    """Look for rings of garbage less often, and never among what the start has made.

    A body of 1 MiB may hold 340,000 lists: by default Python would look 500 times meanwhile.
    """
    gc.freeze()
    gc.set_threshold(10_000)


def listen(host: str, port: int) -> socket.socket:
    """Open the port; raises OSError where that cannot be done."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # inherited by every connection; asyncio would set it, but not where the protocol is unsaid
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address under which this machine reaches the service."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def stop(*_: object) -> NoReturn:
    """End in peace where a signal comes before the server has begun to listen for it."""
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())

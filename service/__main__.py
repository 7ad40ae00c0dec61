"""`python -m service`: serve the current bundle of a folder in one process."""

import argparse
import gc
import logging
import os
import resource
import signal
import socket
import sys
from typing import NoReturn

# before slow imports: SIGHUP, which asks a running service to poll, must not end a starting one
signal.signal(signal.SIGHUP, signal.SIG_IGN)

from index.errors import ConfigError  # noqa: E402
from service.logging_config import configure_logging, fields  # noqa: E402
from service.settings import Settings, describe_settings, load_settings  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; return the exit status.

    0: clean shutdown; 1: port unavailable, second signal or shutdown deadline; 2: invalid
    settings.
    """
    # OpenMP and OpenBLAS read these at import, so set them before importing the app
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
    """Build the parser; each option overrides a setting."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve /retrieve from the current bundle of a folder and follow its changes. "
        "The port opens at once; /readyz reports when a bundle is live. Runs one process; start "
        "replicas to scale out.",
        epilog=f"Each setting is an environment variable; an option overrides its variable."
        f"\n\n{describe_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundles", metavar="DIR", help="folder of bundles")
    parser.add_argument("--host", dest="http_host", metavar="NAME", help="address to listen on")
    parser.add_argument(
        "--port",
        dest="http_port",
        metavar="PORT",
        help="port to listen on; 0 picks a free one, logged with the event `listening`",
    )
    return parser


def serve(settings: Settings) -> int:
    """Listen and serve until a signal; return the exit status."""
    import uvicorn  # imported late, as is the app: after thread counts are set, not for --help

    from service.app import create_app
    from service.connection import Connection
    from service.server import DrainingServer, Lifetime
    from service.slow_clients import ClientLimits

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
        address = f"{settings.http_host}:{settings.http_port}"
        print(
            f"{address}: cannot listen ({error}); choose a free port or an address of this host",
            file=sys.stderr,
        )
        return 1
    raise_file_limit()
    reduce_gc_frequency()
    signal.signal(signal.SIGTERM, exit_on_signal)
    signal.signal(signal.SIGINT, exit_on_signal)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        http=Connection,
        ws="none",
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    log.info("listening", extra=fields(url=format_url(listener)))
    limits = ClientLimits(
        settings.request_timeout_s,
        settings.min_read_rate_bytes,
        settings.connection_unsent_limit_bytes,
        settings.unsent_limit_bytes,
    )
    server = DrainingServer(config, lifetime, settings.shutdown_delay_s, limits)
    server.run(sockets=[listener])
    return 1 if server.force_exit else 0


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit; the usual 1,024 allow few connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def reduce_gc_frequency() -> None:
    """Run the cyclic garbage collector less often, and never on objects made at startup.

    Parsing a 1 MiB body can create 340,000 lists, which triggers 500 collections by default.
    """
    gc.freeze()
    gc.set_threshold(10_000)


def listen(host: str, port: int) -> socket.socket:
    """Open the port; raises OSError if it cannot be opened."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # accepted connections inherit it; asyncio sets it only on sockets with an explicit protocol
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def format_url(listener: socket.socket) -> str:
    """Return the URL at which this host reaches the service."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def exit_on_signal(*_: object) -> NoReturn:
    """Exit cleanly on a signal that arrives before uvicorn installs its handlers."""
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())

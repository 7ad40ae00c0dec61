"""Cluster maps over TLS, where this build of redis-server speaks it."""

import shutil
import subprocess

import pytest

from index.errors import StoreUnreachableError
from tests.support.cluster_maps import numbered, redis_maps
from tests.support.redis_server import free_port, speaks_tls

A = numbered(0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1, signed by itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl on the PATH to make a certificate with; install it")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "made.pem", folder / "key.pem"
    asked = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    asked += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {made}"
    subprocess.run(["openssl", *asked.split()], check=True, capture_output=True)
    return made, key


@pytest.fixture
def tls_port(start_redis, certificate):
    if not speaks_tls():
        pytest.skip("this build of redis-server speaks no TLS; take one that does")
    made, key = certificate
    port = free_port()
    options = {"tls-port": port, "tls-cert-file": made, "tls-key-file": key}
    options |= {"tls-ca-cert-file": made, "tls-auth-clients": "no"}
    start_redis(*(word for name, value in options.items() for word in (f"--{name}", str(value))))
    return port


def test_a_map_goes_over_tls_to_a_server_whose_certificate_is_known(tls_port, certificate):
    url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate[0]}"
    store = redis_maps(url)
    store.publish(A)
    assert store.read(A.version).version == A.version
    assert store.place == f"rediss://127.0.0.1:{tls_port}/0, namespace esans"


def test_a_server_whose_certificate_is_unknown_is_not_spoken_to(tls_port):
    with pytest.raises(StoreUnreachableError, match="certificate verify failed"):
        redis_maps(f"rediss://127.0.0.1:{tls_port}/0").publish(A)

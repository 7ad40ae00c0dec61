"""Cluster maps over TLS, if this build of redis-server supports it."""

import shutil
import subprocess

import pytest

from index.errors import StoreUnreachableError
from tests.support.cluster_maps import numbered_map, redis_maps
from tests.support.redis_server import free_port, supports_tls

A = numbered_map(0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not on the PATH; install it")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    arguments = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    arguments += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def tls_port(start_redis, certificate):
    if not supports_tls():
        pytest.skip("this build of redis-server has no TLS; install one that has")
    certificate_file, key = certificate
    port = free_port()
    options = {"tls-port": port, "tls-cert-file": certificate_file, "tls-key-file": key}
    options |= {"tls-ca-cert-file": certificate_file, "tls-auth-clients": "no"}
    start_redis(*(word for name, value in options.items() for word in (f"--{name}", str(value))))
    return port


def test_publish_over_tls_with_known_certificate(tls_port, certificate):
    url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate[0]}"
    store = redis_maps(url)
    store.publish(A)
    assert store.load(A.version).version == A.version
    assert store.location == f"rediss://127.0.0.1:{tls_port}/0, namespace esans"


def test_publish_over_tls_with_unknown_certificate_fails(tls_port):
    with pytest.raises(StoreUnreachableError, match="certificate verify failed"):
        redis_maps(f"rediss://127.0.0.1:{tls_port}/0").publish(A)

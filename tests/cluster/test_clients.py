"""The programs people upload with, through a balancer before several daemons."""

import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from filestored.client import Client
from tests.api.tus_client import Tus, digest, some
from tests.clients.files import Sample, make_sample
from tests.clients.node import node_client
from tests.cluster.balancer import Balancer
from tests.cluster.conftest import Cluster
from tests.conftest import Daemon, require_program
from tests.npm import npm_packages

__all__ = ["npm_packages"]

MIB = 1 << 20


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path, 5 * MIB + 12345)


def stored(daemon: Daemon, sample: Sample) -> bool:
    return httpx.get(f"{daemon.url}/{sample.digest}", timeout=60).content == sample.path.read_bytes()


@pytest.mark.parametrize("settings", [{"parallelUploads": 3}, {"chunkSize": MIB}], ids=["parallel", "pieces"])
def test_tus_js_client(
    settings: dict[str, int], pair: tuple[Daemon, Daemon], npm_packages: Path, sample: Sample
) -> None:
    with Balancer([daemon.address for daemon in pair]) as balancer:
        job = {
            "file": str(sample.path), "source": "buffer",
            "settings": {"endpoint": f"{balancer.url}/v1/uploads", "retryDelays": [0, 100, 500], **settings},
        }  # fmt: skip
        with node_client(npm_packages, **job) as client:
            client.succeed()
    assert all(stored(daemon, sample) for daemon in pair)


def test_the_python_client_goes_on_through_another_daemon(pair: tuple[Daemon, Daemon], sample: Sample) -> None:
    one, other = pair
    with httpx.Client(base_url=one.url, timeout=60) as client:
        path = Tus(client).begin(sample.path.stat().st_size, sample.path.read_bytes()[:MIB])
    with Balancer([one.address, other.address]) as balancer, Client(balancer.url) as client:
        assert client.put(sample.path).hash == sample.digest
    with httpx.Client(base_url=other.url, timeout=60) as client:
        assert Tus(client).offset(path) == MIB
    assert all(stored(daemon, sample) for daemon in pair)


def test_daemons_that_speak_tls_trust_each_other_by_their_certificate(cluster: Cluster, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key))
    one, other = cluster.start(*flags), cluster.start(*flags)
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    body = some(MIB)
    with (
        httpx.Client(base_url=one.url, verify=context) as here,
        httpx.Client(base_url=other.url, verify=context) as there,
    ):
        path = Tus(here).begin(len(body), body[:1000])
        assert Tus(there).offset(path) == 1000
        assert Tus(there).patch(path, 1000, body[1000:]).headers["filestored-hash"] == digest(body)


def test_daemons_with_certificates_of_strangers_do_not(cluster: Cluster, tmp_path: Path) -> None:
    daemons = []
    for name in ("one", "other"):
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        make_certificate(certificate, key)
        daemons.append(cluster.start("--tls-cert", str(certificate), "--tls-key", str(key)))
    one, other = daemons
    with httpx.Client(base_url=one.url, verify=False) as here, httpx.Client(base_url=other.url, verify=False) as there:
        path = Tus(here).begin(1000, some(400))
        # as if it were away: nothing is sent to whom it does not know
        assert Tus(there).offset(path) == 400
        assert Tus(there).patch(path, 400, some(600)).status_code == 503
        assert Tus(here).offset(path) == 400


def make_certificate(certificate: Path, key: Path) -> None:
    """Make a certificate for another name than that of the machine, signed by itself."""
    command = [
        require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=files.example", "-addext", "subjectAltName=DNS:files.example",
        "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)

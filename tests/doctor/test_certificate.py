"""The certificate: its time, its key, and who may read that."""

import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from filestored.doctor.certificate import good_until
from tests.doctor.examining import look, look_at


def certificate(folder: Path, begins: timedelta, ends: timedelta) -> tuple[str, ...]:
    """Make a certificate that is good from and until then, counted from now; return the flags that name it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "files.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now + begins).not_valid_after(now + ends)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    plain = serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(encoded)
    (folder / "key.pem").chmod(0o600)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"), "--port", "0")


@pytest.mark.parametrize(
    ("begins", "ends", "state", "found"),
    [
        (-1, 90, "good", "is good for 90 more days"), (-80, 10, "warning", "expires in 10.0 days"),
        (-90, -1, "fault", "has expired"), (1, 90, "fault", "is not good yet"),
    ],
)  # fmt: skip
def test_a_certificate_and_its_time(folder: Path, begins: int, ends: int, state: str, found: str) -> None:
    flags = certificate(folder, timedelta(days=begins), timedelta(days=ends, minutes=5))
    assert found in look_at("certificate", folder / "store", *flags).of("certificate", state)["found"]


def test_a_certificate_that_cannot_be_used(folder: Path) -> None:
    flags = certificate(folder, timedelta(days=-1), timedelta(days=90))
    assert good_until(folder / "cert.pem", folder / "key.pem") > time.time()
    (folder / "key.pem").chmod(0o644)
    assert "chmod o-r" in look_at("certificate", folder / "store", *flags).of("certificate", "warning")["mend"]
    (folder / "cert.pem").write_text("nothing of the kind")
    assert "cannot be used" in look_at("certificate", folder / "store", *flags).of("certificate", "fault")["found"]
    with pytest.raises(ssl.SSLError):
        good_until(folder / "cert.pem", folder / "key.pem")


def test_a_key_that_is_not_there_or_not_given(folder: Path) -> None:
    flags = certificate(folder, timedelta(days=-1), timedelta(days=90))
    (folder / "key.pem").unlink()
    told = look_at("certificate", folder / "store", *flags).of("certificate", "fault")
    assert "--tls-key" in told["found"]
    told = look_at("certificate", folder / "store", *flags[:2]).of("certificate", "fault")
    assert "--tls-key is not given" in told["found"]
    # nothing else is wrong with the settings
    assert look_at("settings", folder / "store", *flags).of("settings", "good")


def test_downloads_that_are_sent_from_https_into_the_clear(folder: Path) -> None:
    flags = certificate(folder, timedelta(days=-1), timedelta(days=90))
    given = {
        "store": "s3://files/here", "spool": str(folder / "spool"), "redirect_downloads": "yes",
        "bucket_endpoint": "http://s3.example", "tls_cert": flags[1], "tls_key": flags[3],
    }  # fmt: skip
    look("proxies", given, {}).says("proxies", "warning", "from https to http://s3.example, in the clear")

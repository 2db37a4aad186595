"""The certificate for TLS: whether it and its key can be used, and how long it is good."""

import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from filestored.doctor.findings import Finding, Situation, fault, good, skipped, warning

CERTIFICATE = ("tls_cert", "tls_key")
"""The settings that this is about."""

_SOON_DAYS = 14
_DAY = 86400
_HAS_EXPIRED, _NOT_YET = 10, 9
_STEPS = 10


def check_certificate(situation: Situation) -> Iterator[Finding]:
    """Shake hands with oneself: what comes of that says all there is to know."""
    for name in CERTIFICATE:
        if name in situation.wrong:
            yield fault(
                situation.wrong[name], "name both, a PEM chain and its key, which the user of the daemon may read"
            )
            return
    certificate, key = situation.settings.tls_cert, situation.settings.tls_key
    if certificate is None or key is None:
        yield skipped("no certificate is given: TLS is off")
        return
    try:
        mode = key.stat().st_mode
        yield _judge(certificate, key)
    except ssl.SSLCertVerificationError as error:
        yield _judge_refused(certificate, error)
    except (OSError, ValueError) as error:
        yield fault(
            f"{certificate} and {key} cannot be used: {error}", "give a PEM chain and its key, without a passphrase"
        )
        return
    if mode & stat.S_IROTH:
        yield warning(f"everybody on this machine may read {key}", f"chmod o-r {key}")


def _judge(certificate: Path, key: Path) -> Finding:
    left = (good_until(certificate, key) - time.time()) / _DAY
    if left < _SOON_DAYS:
        return warning(
            f"{certificate} expires in {left:.1f} days", "renew it, then systemctl reload, or kill -HUP the daemon"
        )
    return good(f"{certificate} is good for {left:.0f} more days")


def _judge_refused(certificate: Path, error: ssl.SSLCertVerificationError) -> Finding:
    if error.verify_code == _HAS_EXPIRED:
        return fault(f"{certificate} has expired", "renew it, then systemctl reload, or kill -HUP the daemon")
    if error.verify_code == _NOT_YET:
        return fault(f"{certificate} is not good yet", "see whether the clock is right")
    return warning(f"{certificate}: {error.verify_message}", "see whether clients accept it")


def good_until(certificate: Path, key: Path) -> float:
    """Return when a certificate expires, in seconds since 1970. Raises OSError, SSLCertVerificationError.

    It is trusted for being itself, whoever has signed it: how far clients trust it is for them to say.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # the empty passphrase keeps OpenSSL from asking a terminal for one
    server_side.load_cert_chain(certificate, key, password=b"")
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    client_side.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_side.load_verify_locations(certificate)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server)
    for _ in range(_STEPS):
        done = [_shake(side) for side in (client, server)]
        if all(done):
            break
    shown = client.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _shake(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True

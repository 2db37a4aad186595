"""Whether a daemon can start, as far as can be told beforehand: so that mistakes show before anything is stopped.

Nothing large is imported for a store on disk: the commands that only start or restart a daemon are quick.
"""

import ssl

from filestored.blobs.layout import StoreFolder
from filestored.blobs.ownership import require_owner
from filestored.errors import SettingsError, StartError
from filestored.settings import Settings


def require_startable(settings: Settings) -> None:
    """Raise SettingsError or StartError where a daemon cannot start, as far as can be told without changing anything.

    What is to be made for it is made only then.
    """
    require_detours(settings)
    require_certificate(settings)
    require_owner(settings.folder, is_daemon=True)
    StoreFolder.require(settings.folder, settings.hash, settings.bucket)
    if settings.bucket is None:
        return
    from filestored.blobs.opening import read_mark
    from filestored.recovery import require_not_anew

    read_mark(settings.bucket)
    where = settings.catalogue_address
    require_not_anew(settings.bucket, where or StoreFolder(settings.folder, settings.hash).catalogue_file)


def require_detours(settings: Settings) -> None:
    """Raise SettingsError where downloads are to go a way that there is not."""
    if settings.redirect_downloads is not None and settings.bucket is None:
        raise SettingsError("--redirect-downloads needs a bucket: the addresses it sends to are those of its objects")
    if settings.accel_redirect is not None and settings.bucket is not None:
        raise SettingsError("--accel-redirect needs a store that is a folder: nginx sends its files")
    if settings.accel_redirect is not None and not settings.trusted_proxy:
        raise SettingsError("--accel-redirect needs --trusted-proxy, the address of nginx: nobody else is answered so")


def require_certificate(settings: Settings) -> None:
    """Raise StartError where the certificate and its key cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # the empty passphrase keeps OpenSSL from asking a terminal for one
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=b"")
    except (OSError, ValueError) as error:
        raise StartError(f"the certificate {settings.tls_cert} and its key cannot be used: {error}") from error

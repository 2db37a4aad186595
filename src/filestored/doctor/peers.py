"""Reaching the daemons of a cluster at the addresses that they have registered, as daemons reach each other."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

SILENT = "it accepts connections and does not answer"
"""What is said of a daemon that may be stopped, or has too much to do."""

_SECONDS = 4.0


def why_unreached(urls: Sequence[str], certificate: Path | None) -> list[str]:
    """Ask daemons at once whether they are there; return for each why it cannot be reached, empty where it can.

    ``certificate`` is this machine's own, if any. Raises LibraryMissing.
    """
    return asyncio.run(_ask_all(urls, certificate))


async def _ask_all(urls: Sequence[str], certificate: Path | None) -> list[str]:
    return list(await asyncio.gather(*(_ask(url, certificate) for url in urls)))


async def _ask(url: str, certificate: Path | None) -> str:
    from filestored.cluster.connection import PeerAway, PeerConnection

    try:
        async with asyncio.timeout(_SECONDS):
            connection = await PeerConnection.open(url, certificate)
            try:
                await connection.begin("GET", "/healthz", [])
                await connection.finish()
                answer = await connection.answer()
            finally:
                connection.close()
    except TimeoutError:
        return SILENT
    except PeerAway as error:
        return str(error.__cause__ or error) or "it does not answer"
    return "" if answer.status == 200 else f"what answers there is no daemon ({answer.status})"

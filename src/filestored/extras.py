"""The parts of the program that are installed on demand, and what to say where one is missing.

``pip install filestored`` brings only the command line itself; the libraries of the server, the client and of
buckets are extras, so that a client needs nothing of the server's (docs/client.md).
"""

from filestored.errors import FilestoredError

_NEEDED_BY = {
    "anyio": "client",
    "httpcore": "client",
    "httpx": "client",
    "fsspec": "client",
    "rich": "client",
    "tomlkit": "client",
    "obstore": "buckets",
    "psycopg": "postgresql",
    "h11": "postgresql",
    "blake3": "blake3",
    "alembic": "server",
    "granian": "server",
    "loguru": "server",
    "prometheus_client": "server",
    "pydantic": "server",
    "python_multipart": "server",
    "segno": "server",
    "sqlalchemy": "server",
    "uvloop": "server",
}

_PARTS = {
    "client": "the client's libraries are",
    "buckets": "the library for buckets is",
    "postgresql": "the library for PostgreSQL is",
    "blake3": "the library for BLAKE3 is",
    "server": "the server's libraries are",
}


class LibraryMissing(FilestoredError, ImportError):
    """A part of the program is used whose libraries are not installed; the sentence says how to install them."""


def explained(error: ImportError) -> LibraryMissing | None:
    """Say which extra brings the module that was not found; None where it is in none of them."""
    extra = _NEEDED_BY.get((error.name or "").partition(".")[0])
    if extra is None:
        return None
    # the name is kept for whoever catches it as the ImportError it is
    return LibraryMissing(f"{_PARTS[extra]} not installed: pip install 'filestored[{extra}]'", name=error.name)

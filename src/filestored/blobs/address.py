"""Where a bucket is: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

SCHEMES = ("s3", "gs", "az")
"""The kinds of buckets: Amazon S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage."""

WRITTEN = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
"""How an address is written."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,253}", re.ASCII)
# what every engine takes in a key, and what needs no escape in a URL
_PART = re.compile(r"[A-Za-z0-9._~=+@,-]{1,255}", re.ASCII)
_MAX_PREFIX = 512
_MEANT = re.compile(rf"(?:{'|'.join(SCHEMES)}):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """A bucket, the prefix of all keys in it, and how it is reached. As a text it is its URL."""

    scheme: str
    bucket: str
    prefix: str = ""
    """Without a slash at either end; empty for the whole bucket."""
    endpoint: str | None = None
    """``http://…`` or ``https://…`` of the engine; None for that of the environment, else the provider's own."""
    region: str | None = None
    """None for that of the environment."""
    path_style: bool | None = None
    """Whether the bucket stands in the path instead of the host's name; None where an endpoint is given."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def key(self, name: str) -> str:
        """Return the key of something below the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name

    @classmethod
    def parse(cls, url: str) -> "BucketAddress":
        """Read a URL. Raises ValueError, with what is wrong as its text."""
        if any(mark in url for mark in "?#%"):
            raise ValueError(f"a bucket is written as {WRITTEN}, without ?, # and %")
        parts = urlsplit(url)
        if not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)) or not _BUCKET.fullmatch(parts.netloc):
            raise ValueError(f"a bucket is written as {WRITTEN}")
        prefix = parts.path.strip("/")
        names = prefix.split("/") if prefix else []
        if len(prefix) > _MAX_PREFIX or not all(_PART.fullmatch(name) for name in names) or {".", ".."} & set(names):
            raise ValueError(f"the prefix in {url} may have ASCII letters, digits and ._~=+@,- between single slashes")
        return cls(parts.scheme, parts.netloc, prefix)


def is_bucket(text: str) -> bool:
    """Tell whether a text is meant to be the address of a bucket."""
    # also where it is misspelled: nobody means a folder by s3:/bucket
    return _MEANT.match(text) is not None

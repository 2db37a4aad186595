"""The JSON that goes in and out, as models: they judge what comes in, and describe both in the OpenAPI document."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

MAX_HASHES = 10_000
"""How many hashes one request may ask about."""


class _Said(BaseModel):
    """What a client says: a field that is not known is a mistake, not a wish that is passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FilePatch(_Said):
    """What is to change about a file; what is left out stays."""

    name: StrictStr | None = Field(None, description="null for none")
    type: StrictStr | None = Field(None, description="media type; null for the one the name suggests")
    expires_at: AwareDatetime | None = Field(None, description="RFC 3339, with a time zone; null for never")


class Hashes(_Said):
    """Hashes to ask about."""

    hashes: Annotated[list[StrictStr], Field(max_length=MAX_HASHES)]


class LinkWish(_Said):
    """How long a link is to work."""

    expires_in: StrictStr | StrictInt | StrictFloat = Field("1h", description="3600, 90m, 12h, 7d")


class FileObject(BaseModel):
    """A stored file, and what is known of it."""

    hash: str = Field(description="lower-case hex")
    algorithm: str
    size: int = Field(description="bytes")
    name: str | None
    type: str = Field(description="media type")
    owner: str | None = Field(description="name of the token that uploaded it; null where that is not known")
    created_at: datetime
    expires_at: datetime | None
    url: str


class FilePage(BaseModel):
    """Some files in order, and where the next page goes on."""

    files: list[FileObject]
    next_cursor: str | None = Field(description="null where nothing follows")


class Missing(BaseModel):
    """The hashes, of those asked about, that have to be uploaded."""

    missing: list[str]


class Link(BaseModel):
    """An address that works without a token until its time is over."""

    url: str
    expires_at: datetime


class Stats(BaseModel):
    """How much is kept: by the caller, or by everybody for a caller with ``admin``."""

    files: int
    blobs: int
    bytes: int
    free: int = Field(description="bytes free on the disk")
    algorithm: str
    version: str


class Health(BaseModel):
    """Whether the server is usable."""

    status: str
    fault: str | None = None


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do")

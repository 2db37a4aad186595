"""The JSON that goes in and out, as models: they judge what comes in, and describe both in the OpenAPI document."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    StrictBool,
    StrictFloat,
    StrictStr,
)

from filestored.quantities import MAX_DURATION

MAX_HASHES = 10_000
"""How many hashes one request may ask about."""

# patterns for the document, in what ECMA-262 and Python have in common; others judge what comes in

HASH_PATTERN = f"^({'|'.join(f'[0-9A-Fa-f]{{{length}}}' for length in (32, 40, 64, 128))})$"
"""Hex of the length of any algorithm."""

_NUMBERS = [
    rf"([1-9][0-9]{{0,{digits - 1}}}(\.[0-9]{{1,9}})?|0\.[0-9]{{0,8}}[1-9]){unit}"
    for digits, unit in ((9, "s?"), (7, "m"), (5, "h"), (4, "d"), (3, "w"))
]
DURATION_PATTERN = f"^({'|'.join(_NUMBERS)})$"
"""Durations that are taken whatever their digits are; others, up to a hundred years, are too."""

_WORD = "[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_QUOTED = '"([ !#-\\[\\]-~]|\\\\[ -~])*"'
MEDIA_TYPE_PATTERN = f"^{_WORD}/{_WORD}([ \\t]*;[ \\t]*({_WORD}=({_WORD}|{_QUOTED}))?)*[ \\t]*$"
"""RFC 9110, 8.3.1."""

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{8,}([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII)


def _require_rfc3339(value: object) -> object:
    """Keep out the other ways to write a time that the library would take, numbers above all."""
    if isinstance(value, str) and _TIME.fullmatch(value):
        return value
    raise ValueError("a time is written as 2030-12-31T23:59:59Z (RFC 3339, with a time zone)")


_Time = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339)]
_Hash = Annotated[StrictStr, Field(json_schema_extra={"pattern": HASH_PATTERN})]
_Duration = Annotated[StrictStr, Field(json_schema_extra={"pattern": DURATION_PATTERN})]
_Seconds = Annotated[StrictFloat, Field(ge=1, le=MAX_DURATION)]
_MediaType = Annotated[StrictStr, Field(json_schema_extra={"pattern": MEDIA_TYPE_PATTERN, "maxLength": 255})]


class _Said(BaseModel):
    """What a client says: a field that is not known is a mistake, not a wish that is passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FilePatch(_Said):
    """What is to change about a file; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: StrictStr | None = Field(None, description="null for none")
    type: _MediaType | None = Field(None, description="media type; null for the one the name suggests")
    expires_at: _Time | None = Field(None, description="RFC 3339, with a time zone, in the future; null for never")


class Hashes(_Said):
    """Hashes to ask about."""

    hashes: Annotated[list[_Hash], Field(max_length=MAX_HASHES)]
    own: StrictBool = Field(False, description="whether only what the caller keeps itself, and for ever, is there")


class LinkWish(_Said):
    """How long a link is to work, and whether it is wanted as a picture too."""

    expires_in: _Seconds | _Duration = Field(
        "1h", description="seconds, or a number with a unit: 3600, 90m, 12h, 7d; at most a hundred years"
    )
    qr: StrictBool = Field(False, description="whether to answer the link as a QR code too")


class UploadForm(BaseModel):
    """A form: one or several files, whatever their fields are called.

    The text fields ``name``, ``expires_in`` and ``file_hash`` count like those of the query, and before them; others
    are passed over.
    """

    # a field's name goes into a header, where line ends are escaped and other control characters but the tab forbidden
    model_config = ConfigDict(
        json_schema_extra={"propertyNames": {"pattern": r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]*$"}}
    )

    file: bytes


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


class FileDescription(FileObject):
    """A stored file, and for whoever sees all files how many keep it."""

    owners: int | None = Field(None, description="how many owners keep the same bytes; only for whoever sees all")


class Uploaded(RootModel[FileObject | list[FileObject]]):
    """The file; of a form with several files a list, in their order."""


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
    qr: str | None = Field(None, description="the link as a QR code, an SVG image; only where it was asked for")


class Caller(BaseModel):
    """Who asks, and what it may do."""

    owner: str | None = Field(description="whose files its uploads are; null for whoever may keep none")
    permissions: list[str] = Field(description="some of read, write, delete, admin")
    quota: int | None = Field(description="bytes it may keep in all; null for any number")
    expires_at: datetime | None = Field(description="when its token ends; null for never, and without a token")
    algorithm: str = Field(description="what names the files that it uploads, such as sha256")


class Stats(BaseModel):
    """How much is kept: by the caller, or by everybody for a caller with ``admin``."""

    files: int
    blobs: int
    bytes: int
    free: int | None = Field(description="bytes free on the store's disk; null where it is a bucket")
    algorithm: str
    version: str


class Health(BaseModel):
    """That the server is usable."""

    status: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do")

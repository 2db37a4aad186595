"""Reading ``multipart/form-data`` as it arrives (RFC 7578, RFC 2046, 5.1), holding none of it."""

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from filestored.api.names import disposition_parameters, name_from_disposition
from filestored.errors import BadRequest, HeadersTooLarge, RequestError, TooLarge

MAX_PARTS = 1000
"""How many parts a form may have."""

MAX_PART_HEADERS = 32
"""How many header fields a part may have."""

MAX_PART_HEADER_BYTES = 16 * 1024
"""How long the header fields of a part may be together, in bytes."""

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]", re.ASCII)
# what programs give the fields of a form that are no files
_TEXT = re.compile(rb"|text/.+|application/(?:.+\+)?(?:json|xml)|application/x-www-form-urlencoded")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SINGLE = frozenset({b"content-disposition", b"content-type", b"content-transfer-encoding"})
_PLAIN_ENCODINGS = frozenset({b"7bit", b"8bit", b"binary"})

# it warns of every malformed body; whoever sent it is told already, and the log is not theirs to fill
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class PartBegin:
    """The head of a part: its field's name, the file's name as given, and its headers by lower-case name."""

    name: str | None
    file_name: str | None
    headers: dict[bytes, bytes]

    @property
    def is_file(self) -> bool:
        """Whether the part is a file, not a text field: it has a file name, even an empty one, or another type."""
        return self.file_name is not None or self._essence not in (b"", b"text/plain")

    @property
    def is_text(self) -> bool:
        """Whether its type is one that programs give fields, too."""
        return _TEXT.fullmatch(self._essence) is not None

    @property
    def _essence(self) -> bytes:
        return self.headers.get(b"content-type", b"").partition(b";")[0].strip(b" \t").lower()


@dataclass(frozen=True, slots=True)
class PartBody:
    """More of the body of the part that began last; never empty. It may be a view of the piece that was fed."""

    body: bytes | memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part that began last is complete."""


Event = PartBegin | PartBody | PartEnd


class MultipartReader:
    """Tells the parts of one multipart body apart. Once it has raised an error it is of no more use.

    Raises BadRequest where ``content_type`` has no boundary of 1 to 70 of the characters of RFC 2046, 5.1.1.
    """

    def __init__(self, content_type: str) -> None:
        boundary = disposition_parameters(content_type).get("boundary", "")
        if not _BOUNDARY.fullmatch(boundary):
            raise BadRequest("The Content-Type of a form names its boundary, of 1 to 70 characters: RFC 2046, 5.1.1.")
        self._events: list[Event] = []
        self._parts = -1
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._field = bytearray()
        self._value = bytearray()
        self._is_complete = False
        self._parser = MultipartParser(
            boundary.encode("ascii"),
            self._callbacks(),
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )
        # The parser knows no preamble. Read as the body of a part before the first, which is not told of,
        # it may be of any length, and the first delimiter is found like all others.
        self._parser.write(f"--{boundary}\r\n\r\n\r\n".encode("ascii"))

    def feed(self, chunk: bytes) -> list[Event]:
        """Take in more of the body and return what it brought, in order. A long body is not copied.

        Raises BadRequest (malformed, or in a transfer encoding), TooLarge (parts), HeadersTooLarge (of a part).
        """
        self._events = []
        if chunk and not self._is_complete:
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise _refusal(error) from error
        return self._events

    def finish(self) -> None:
        """Take note that the body has ended. Raises BadRequest where its closing delimiter has not come."""
        if not self._is_complete:
            raise BadRequest("The form ends before its closing boundary; nothing was stored.")

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_part_data": self._take_body,
            "on_part_end": self._end_part,
            "on_header_field": self._take_field,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TooLarge(f"A form may have at most {MAX_PARTS} parts.")
        self._headers = {}
        self._header_bytes = 0

    def _take_field(self, chunk: bytes, start: int, stop: int) -> None:
        self._count_header(stop - start)
        self._field += chunk[start:stop]

    def _take_value(self, chunk: bytes, start: int, stop: int) -> None:
        self._count_header(stop - start)
        self._value += chunk[start:stop]

    def _count_header(self, length: int) -> None:
        self._header_bytes += length
        if self._header_bytes > MAX_PART_HEADER_BYTES:
            raise _headers_too_large()

    def _end_header(self) -> None:
        name, value = bytes(self._field).lower(), bytes(self._value).strip(b" \t")
        self._field.clear()
        self._value.clear()
        if _CONTROL.search(value):
            raise BadRequest("A header of a part of the form has a control character in it.")
        if name in self._headers:
            if name in _SINGLE:
                raise BadRequest(f"A part of the form has the header {name.decode('ascii')} twice.")
            value = self._headers[name] + b", " + value
        self._headers[name] = value

    def _end_headers(self) -> None:
        if not self._parts:
            return
        encoding = self._headers.get(b"content-transfer-encoding", b"binary")
        if encoding.lower() not in _PLAIN_ENCODINGS:
            raise BadRequest("A part of the form is in a Content-Transfer-Encoding; send it as it is (RFC 7578, 4.7).")
        disposition = _decode(self._headers.get(b"content-disposition", b""))
        name = disposition_parameters(disposition).get("name")
        self._events.append(PartBegin(name, name_from_disposition(disposition), self._headers))

    def _take_body(self, chunk: bytes, start: int, stop: int) -> None:
        if self._parts:
            self._events.append(PartBody(memoryview(chunk)[start:stop]))

    def _end_part(self) -> None:
        if self._parts:
            self._events.append(PartEnd())

    def _end(self) -> None:
        self._is_complete = True


def _decode(header: bytes) -> str:
    """Return a header as text: UTF-8, as browsers send it, else the Latin-1 of older clients."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


def _refusal(error: MultipartParseError) -> RequestError:
    # the parser tells its limits from malformed bodies by its message only
    if str(error).startswith("Maximum header"):
        return _headers_too_large()
    return BadRequest("The form is malformed; it is written as multipart/form-data of RFC 7578.")


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"A part of a form may have at most {MAX_PART_HEADERS} headers of {MAX_PART_HEADER_BYTES} bytes together."
    )

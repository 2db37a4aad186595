"""Operations without input or output: generators that yield what is to be done, and are sent what came of it.

One description of an operation serves two clients: the one that blocks performs the effects with threads and
``httpx.Client``, the other with a loop and ``httpx.AsyncClient``. An effect that fails is thrown into the generator,
which may go on with others, such as another attempt or clearing up.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from filestored.client.errors import ClientError, refusal, shown

T = TypeVar("T")


class Landing(Protocol):
    """Where the body of an answer goes. It is told of the answer's header first; its methods may block."""

    def open(self, answer: "Answer") -> None:
        """Look at the header of an answer that is no error, before its body."""

    def write(self, piece: bytes) -> None:
        """Take the next piece of the body."""


@dataclass(frozen=True, slots=True)
class Request:
    """Send a request; the reply is an Answer, of whatever status. Raises Broken where there is none.

    ``path`` is absolute or an address of the server's own. The body is ``content``, or what ``pieces`` returns,
    anew for each attempt and called where it may block. An answer below 300 has its body go to ``landing`` where there
    is one, else where ``is_streamed`` to the caller, else into the answer. ``timeout`` is in seconds;
    ``end`` is the moment, by ``time.monotonic``, at which it is given up.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    pieces: Callable[[], Iterator[bytes]] | None = None
    landing: Landing | None = None
    is_streamed: bool = False
    timeout: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def is_error(self) -> bool:
        """Whether it says that the request failed."""
        return self.status >= 300

    def json(self) -> Any:
        """Return the body. Raises ClientError where it is no JSON: something else than filestored answered."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise not_filestored() from None

    def error(self) -> ClientError:
        """Return the error that it stands for (RFC 9457)."""
        try:
            said = json.loads(self.content)
            detail, code = str(said["detail"]), str(said.get("type", ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            place = self.headers.get("location", "")
            hint = f": it sends elsewhere, to {shown(place[:200])}; use that address" if place else ""
            detail, code = f"the server answered with status {self.status}{hint}", ""
        return refusal(self.status, code.rpartition("/")[2].rpartition(":")[2], detail)


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Do:
    """Run something that may block; the reply is what it returns."""

    work: Callable[[], Any]


Effect: TypeAlias = Request | Wait | Do
Steps: TypeAlias = Generator[Effect, Any, T]


class Broken(Exception):
    """A request got no whole answer. ``was_sent`` is False where no connection came about.

    ``is_final`` tells that trying again is in vain, as with a certificate that is not trusted.
    """

    def __init__(self, reason: str, *, was_sent: bool, is_final: bool = False) -> None:
        super().__init__(reason)
        self.was_sent = was_sent
        self.is_final = is_final


def ask(request: Request) -> Steps[Answer]:
    """Send a request once; return the answer, of whatever status. Raises Broken."""
    answer: Answer = yield request
    return answer


def do(work: Callable[[], T]) -> Steps[T]:
    """Run something that may block; return what it returns, raise what it raises."""
    result: T = yield Do(work)
    return result


def wait(seconds: float) -> Steps[None]:
    """Let time pass."""
    yield Wait(seconds)


def not_filestored() -> ClientError:
    """Return the error for an answer that filestored would not give."""
    return ClientError("what answers at this address is not filestored: check the address")

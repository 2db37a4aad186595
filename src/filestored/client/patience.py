"""When an operation is attempted again, and when it is given up."""

import random
import time
from dataclasses import dataclass, replace

from filestored.client.errors import ClientError, Unreachable
from filestored.client.steps import Answer, Broken, Request, Steps, ask, not_filestored, wait

_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 10.0
_LONGEST_ASKED_SECONDS = 120.0
_TRIES_AT_FIRST = 3
# what every filestored answers, whatever it has stored
_ALWAYS_THERE = frozenset({"/v1/caller", "/v1/files", "/v1/files/missing", "/v1/stats", "/v1/uploads"})
_PASSING = frozenset({408, 423, 425, 429, 502, 503, 504})


@dataclass(slots=True)
class Reach:
    """The server, as far as it is reached: shared by all operations of a client."""

    url: str
    retry_for: float
    deadline: float | None
    was_reached: bool = False
    """Whether it has ever answered: one that has not is probably not there, and is not waited for."""


class Patience:
    """The patience of one operation: back-off that grows with each failure in a row, and ends.

    Waits are drawn at random below a bound that doubles ("full jitter"), so that clients do not come back together.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._failures = 0
        self._since: float | None = None
        self._end = None if reach.deadline is None else time.monotonic() + reach.deadline

    def has_progressed(self) -> None:
        """Note that the other side has more than ever before: failures until now no longer count.

        Raises Unreachable past the deadline.
        """
        self._failures = 0
        self._since = None
        self.require_time()

    def require_time(self) -> None:
        """Raise Unreachable past the deadline."""
        if self._end is not None and time.monotonic() > self._end:
            raise self._over()

    def after(self, failure: Broken | Answer) -> Steps[None]:
        """Wait after a failure, as long as is reasonable. Raises what is to be told where no time is left."""
        self.require_time()
        now = time.monotonic()
        if self._since is None:
            self._since = now
        seconds = self._pause(failure)
        if isinstance(failure, Broken) and self._is_in_vain(failure):
            raise self._told(failure)
        if now + seconds > self._since + self._reach.retry_for:
            raise self._told(failure)
        if self._end is not None and now + seconds > self._end:
            raise self._over()
        self._failures += 1
        yield from wait(seconds)

    def _is_in_vain(self, failure: Broken) -> bool:
        """Tell whether there is probably no server: one that has never answered is not believed in for long."""
        if failure.is_final or self._reach.was_reached:
            return failure.is_final
        return not failure.was_sent or self._failures + 1 >= _TRIES_AT_FIRST

    def _pause(self, failure: Broken | Answer) -> float:
        asked = retry_after(failure) if isinstance(failure, Answer) else 0.0
        bound = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._failures, 20))
        return asked + random.uniform(bound / 4, bound)  # noqa: S311

    def _told(self, failure: Broken | Answer) -> ClientError:
        return failure.error() if isinstance(failure, Answer) else Unreachable(f"{self._reach.url}: {failure}")

    def _over(self) -> ClientError:
        return Unreachable(f"{self._reach.url}: it took longer than the deadline of {self._reach.deadline:g} seconds")

    def ask_once(self, request: Request) -> Steps[Answer]:
        """Send a request once, to be given up at the deadline. Raises Broken, Unreachable past the deadline."""
        self.require_time()
        try:
            return (yield from ask(replace(request, end=self._end)))
        except Broken:
            self.require_time()
            raise

    def ask(self, request: Request) -> Steps[Answer]:
        """Send a request until it is answered by something that does not pass by itself. Raises ClientError."""
        while True:
            try:
                answer = yield from self.ask_once(request)
            except Broken as broken:
                yield from self.after(broken)
                continue
            if answer.status not in _PASSING:
                return answer
            yield from self.after(answer)

    def require(self, request: Request) -> Steps[Answer]:
        """Like ``ask``, and raise the error of an answer that is one: NotStored only where a hash was asked for."""
        answer = yield from self.ask(request)
        if answer.status == 404 and request.path in _ALWAYS_THERE:
            raise not_filestored()
        if answer.is_error:
            raise answer.error()
        return answer


def passes(answer: Answer) -> bool:
    """Tell whether what an answer complains about may pass by itself."""
    return answer.status in _PASSING


def retry_after(answer: Answer) -> float:
    """Return how many seconds the server asks to wait (RFC 9110, 10.2.3), within reason; 0 where it does not."""
    try:
        return min(_LONGEST_ASKED_SECONDS, max(0.0, float(answer.headers.get("retry-after", "0"))))
    except ValueError:
        return 0.0

"""HTTP by hand: for requests that no client library would send."""

import re
import socket


class RawConnection:
    """A bare connection to a daemon."""

    def __init__(self, address: tuple[str, int], timeout: float = 10) -> None:
        self.socket = socket.create_connection(address, timeout)
        self.pending = b""

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def request(self, method: str, target: str, *headers: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send a request and read its answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""]
        self.send("\r\n".join(lines).encode("utf-8") + body)
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one whole answer: status, headers with lower-case names, body."""
        while b"\r\n\r\n" not in self.pending:
            self._more()
        head, _, rest = self.pending.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(re.match(r"HTTP/1\.[01] (\d+)", status_line)[1])  # type: ignore[index]
        if status == 100:
            self.pending = rest
            return self.answer()
        self.pending = rest
        length = int(headers.get("content-length", 0))
        while len(self.pending) < length:
            self._more()
        body, self.pending = self.pending[:length], self.pending[length:]
        return status, headers, body

    def is_closed(self) -> bool:
        """Wait for the other side; tell whether it closed the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self.pending += data

"""A small object server that takes its time: what it keeps is in memory, and each kind of request may be slow."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_DATE = "Wed, 25 Nov 2026 00:00:00 GMT"


class SlowS3:
    """Objects by their path, and how many seconds a request takes, by its method."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.seconds: dict[str, float] = {}
        self.has_all = False
        """Whether HEAD finds whatever it is asked for."""
        self.holds_puts = threading.Event()
        """While it is set, PUT is not answered."""
        self.requests: Counter[str] = Counter()
        self.url = ""


@contextlib.contextmanager
def slow_s3() -> Iterator[SlowS3]:
    """Run one on a free port of this machine."""
    state = SlowS3()

    class Handler(_Handler):
        s3 = state

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield state
        finally:
            state.holds_puts.clear()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: SlowS3

    def handle_one_request(self) -> None:
        # whoever asked has had enough of waiting
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_HEAD(self) -> None:
        self._begin()
        body = b"x" if self.s3.has_all else self.s3.objects.get(self._path)
        self._answer(404 if body is None else 200, body or b"", sends=False)

    def do_GET(self) -> None:
        self._begin()
        if "list-type" in self.path:
            empty = b"<Name>b</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated>"
            self._answer(200, b"<ListBucketResult>" + empty + b"</ListBucketResult>")
            return
        body = self.s3.objects.get(self._path)
        self._answer(*((404, b"<Error><Code>NoSuchKey</Code></Error>") if body is None else (200, body)))

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._begin()
        while self.s3.holds_puts.is_set():
            time.sleep(0.05)
        self.s3.objects[self._path] = body
        self._answer(200, b"")

    def do_DELETE(self) -> None:
        self._begin()
        self.s3.objects.pop(self._path, None)
        self._answer(204, b"")

    @property
    def _path(self) -> str:
        return urlsplit(self.path).path

    def _begin(self) -> None:
        self.s3.requests[self.command] += 1
        time.sleep(self.s3.seconds.get(self.command, 0.0))

    def _answer(self, status: int, body: bytes, *, sends: bool = True) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", _DATE)
        self.end_headers()
        if sends:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

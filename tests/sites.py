"""Another web site: a folder served on this machine, at an origin of its own."""

import contextlib
import http.server
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with headers of its own on every answer, and says nothing about it."""

    def __init__(self, *connection: object, directory: str, headers: Mapping[str, str]) -> None:
        self._more = headers
        super().__init__(*connection, directory=directory)  # type: ignore[arg-type]

    def end_headers(self) -> None:
        for name, value in self._more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def serve(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve a folder for the time of a block; yield its origin, under a name: to 127.0.0.1 that is another site."""
    handler = partial(_Handler, directory=str(folder), headers=headers or {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="another site")
        thread.start()
        try:
            yield f"http://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()

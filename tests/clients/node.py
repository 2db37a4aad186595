"""Running tus-js-client in Node, in a process of its own."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_PROGRAM = Path(__file__).with_name("node_client.mjs")
_PATIENCE_SECONDS = 60


class NodeClient:
    """One upload by ``node_client.mjs``; its head says what ``job`` may hold."""

    def __init__(self, packages: Path, job: dict[str, Any]) -> None:
        self.events: list[Event] = []
        self._process = subprocess.Popen(
            ["node", str(_PROGRAM), json.dumps(job)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PACKAGES": str(packages)},
        )  # fmt: skip

    def wait_for(self, event: str) -> Event:
        """Wait for the next event of this name; return it."""
        for told in self._read():
            if told["event"] == event:
                return told
        raise AssertionError(f"it ended without {event!r}: {self._last_words()}")

    def finish(self) -> list[Event]:
        """Wait for its end; return all events."""
        for _ in self._read():
            pass
        assert self._process.wait(_PATIENCE_SECONDS) == 0, self._last_words()
        return self.events

    def succeed(self) -> str:
        """Wait until everything is uploaded; return the upload's address."""
        outcome = [told for told in self.finish() if told["event"] in ("success", "error")]
        assert [told["event"] for told in outcome] == ["success"], outcome or self._last_words()
        return str(outcome[0]["url"])

    def answers(self, method: str) -> list[Event]:
        """Return the answers to its requests of one method, so far."""
        return [told for told in self.events if told["event"] == "answer" and told["method"] == method]

    def close(self) -> None:
        """End it, wherever it is."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> Iterator[Event]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self.events.append(told)
            yield told

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        return f"{self.events[-3:]} {self._process.stderr.read()[-2000:]}"


@contextmanager
def node_client(packages: Path, **job: Any) -> Iterator[NodeClient]:
    """Begin an upload; end the client with the block."""
    client = NodeClient(packages, job)
    try:
        yield client
    finally:
        client.close()

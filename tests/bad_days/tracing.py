"""Interfering with the calls of a running daemon to the system."""

import contextlib
import subprocess
from collections.abc import Iterator

from tests.conftest import require_program


@contextlib.contextmanager
def traced(pid: int, *arguments: str) -> Iterator[None]:
    """Run strace on a process and all its threads."""
    tracer = subprocess.Popen(
        [require_program("strace"), "-f", "-p", str(pid), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tracer.stderr is not None
    with tracer.stderr:
        said = tracer.stderr.readline()
        assert "attached" in said, said
        try:
            yield
        finally:
            tracer.terminate()
            try:
                tracer.wait(0.2)
            except subprocess.TimeoutExpired:
                # it may miss the end of a process that it has killed itself
                tracer.kill()
                tracer.wait()

"""The README's tour, word for word against a real daemon; only the port and the size of the large file are smaller."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartDaemon, require_program

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["README.md", "README.ru.md"])
def test_the_tour_works_as_written(start_daemon: StartDaemon, tmp_path: Path, name: str) -> None:
    require_program("curl")
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    tour = [block for block in blocks if "localhost:9000" in block]
    assert len(tour) == 2
    daemon = start_daemon(store=tmp_path / "store")
    script = "set -e\n" + "".join(tour).replace("localhost:9000", f"localhost:{daemon.address[1]}").replace("2G", "20M")
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    digest = lines[0]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert lines[1:3] == ["Hello, world!"] * 2
    assert f'etag: "{digest}"' in run.stdout
    assert f"worldstore/{digest[:2]}/{digest}" in run.stdout
    assert '"status": 404' in run.stdout
    assert re.search(r"^([0-9a-f]{64})\n\1  -$", run.stdout, re.MULTILINE)

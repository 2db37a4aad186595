"""A daemon that can have no others: nothing of theirs is needed, or costs anything."""

import subprocess
import sys

import httpx

from tests.api.tus_client import Tus, some
from tests.conftest import Daemon


def test_it_imports_nothing_to_speak_with_others() -> None:
    code = (
        "import filestored.api.app, filestored.server, sys; print([n for n in ('h11', 'psycopg') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_claims_to_come_from_another_daemon_is_like_any_other_request(daemon: Daemon) -> None:
    with httpx.Client(base_url=daemon.url) as client:
        tus = Tus(client)
        path = tus.begin(1000, some(400))
        part = tus.begin(5, some(5), Upload_Concat="partial").rpartition("/")[2]
        claimed = {"Filestored-Peer": "e30.AAAA"}
        assert client.get(f"/v1/peers/parts/{part}", headers=claimed).status_code in (403, 404)
        # as before
        assert tus.offset(path) == 400

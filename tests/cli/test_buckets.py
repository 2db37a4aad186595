"""Commands on a store in a bucket: how they find it, and that each mistake is told in one line."""

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from filestored.daemon import Holder, running
from tests.cli.calling import Ended, Shell
from tests.conftest import Daemon, StartDaemon, require_program
from tests.postgres import Database
from tests.processes import wait_until
from tests.s3 import Bucket, free_ports, not_on_ceph

QUIET = ("--host", "127.0.0.1", "--port", "0", "--workers", "1")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell("", tmp_path)


def refused(shell: Shell, *words: str, env: dict[str, str], status: int = 1) -> str:
    ended: Ended = shell.run("run", *QUIET, *words, env=env)
    assert (ended.status, ended.output) == (status, "")
    assert ended.said.startswith("filestored: ")
    assert ended.said.count("\n") == 1
    assert "Traceback" not in ended.said
    return ended.said


def test_mistakes_about_a_bucket_are_told_apart(shell: Shell, bucket: Bucket) -> None:
    place = ("--store", bucket.url)
    assert "there is no bucket nowhere-to-be" in refused(shell, "--store", "s3://nowhere-to-be/x", env=bucket.env)
    wrong = "its key is not known or its secret is wrong: look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    assert wrong in refused(shell, *place, env={**bucket.env, "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert wrong in refused(shell, *place, env={**bucket.env, "AWS_ACCESS_KEY_ID": "nobody"})
    (port,) = free_ports(1)
    said = refused(shell, *place, "--bucket-endpoint", f"http://127.0.0.1:{port}", env=bucket.env)
    assert f"http://127.0.0.1:{port} cannot be reached: connection refused" in said
    said = refused(shell, *place, "--bucket-endpoint", "http://nowhere.invalid", env=bucket.env)
    assert "http://nowhere.invalid cannot be reached: " in said
    said = refused(
        shell, *place, "--bucket-endpoint", bucket.server.endpoint.replace("http:", "https:"), env=bucket.env
    )
    assert "it does not speak TLS" in said
    assert not (shell.folder / "store").exists()
    assert bucket.get(".filestored/format.json") is None


@not_on_ceph
def test_a_wrong_region_is_told_with_the_right_one(shell: Shell, bucket: Bucket) -> None:
    said = refused(shell, "--store", bucket.url, "--bucket-region", "eu-west-1", env=bucket.env)
    assert f"the bucket {bucket.name} is in us-east-1: name its region with --bucket-region" in said


def test_a_certificate_that_nobody_vouches_for_is_told(shell: Shell, bucket: Bucket, tmp_path: Path) -> None:
    with _tls_server(tmp_path) as endpoint:
        said = refused(shell, "--store", bucket.url, "--bucket-endpoint", endpoint, env=bucket.env)
    assert f"{endpoint} cannot be trusted: its certificate is not valid" in said


@contextmanager
def _tls_server(folder: Path) -> Iterator[str]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, suppress(OSError):
                        context.wrap_socket(client, server_side=True).close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_no_credentials_and_no_account_are_told(shell: Shell, bucket: Bucket) -> None:
    nobody = {name: value for name, value in bucket.env.items() if not name.endswith(("KEY_ID", "ACCESS_KEY"))}
    said = refused(shell, "--store", bucket.url, env=nobody)
    assert "no credentials are given: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said
    said = refused(shell, "--store", "az://container", env={})
    assert "look at AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY" in said


@pytest.mark.parametrize(
    "words",
    [
        ["--store", "s3://"],
        ["--store", "s3:/bucket"],
        ["--store", "s3://bucket/a%2Fb"],
        ["--store", "ftp://host/x"],
        ["--store", "s3://bucket", "--spool", "s3://bucket"],
        ["--store", "s3://bucket", "--bucket-endpoint", "127.0.0.1:9000"],
    ],
)
def test_an_address_that_is_none_is_exit_status_2(shell: Shell, words: list[str]) -> None:
    assert words[-2] in refused(shell, *words, env={}, status=2)
    assert list(shell.folder.iterdir()) == []


def test_the_prefix_of_a_stranger_is_refused(shell: Shell, bucket: Bucket) -> None:
    bucket.server.put(bucket.name, "files/letter.txt", b"mine")
    said = refused(shell, "--store", bucket.url, env=bucket.env)
    assert f"{bucket.url} is neither empty nor a store (it holds letter.txt)" in said


@pytest.fixture
def daemon_of_bucket(bucket: Bucket, start_daemon: StartDaemon, tmp_path: Path) -> Daemon:
    spool = tmp_path / "spool"
    flags = ["--store", bucket.url, "--spool", str(spool), "--bucket-endpoint", bucket.server.endpoint]
    return start_daemon(*flags, "--workers", "1", store=spool, env=bucket.server.variables())


def holder_of(spool: Path) -> Holder:
    holder = running(spool)
    assert holder is not None
    return holder


def test_a_daemon_is_found_by_its_spool_and_a_second_one_needs_another(
    shell: Shell, bucket: Bucket, daemon_of_bucket: Daemon
) -> None:
    spool = str(daemon_of_bucket.store)
    for place in (["--spool", spool], ["--store", bucket.url, "--spool", spool]):
        assert shell.done("get_pid", *place) == f"{daemon_of_bucket.pid}\n"
        assert daemon_of_bucket.url in shell.done("status", *place)
    # the default is ./spool
    assert shell.run("status", "--store", bucket.url).status == 0
    assert shell.run("status", "--store", bucket.url, "--spool", "other").status == 1
    said = refused(shell, "--store", bucket.url, "--spool", spool, env=bucket.env)
    assert f"another filestored (process {daemon_of_bucket.pid}) uses this store" in said
    assert f"is the spool of the bucket {bucket.url}" in refused(shell, "--store", spool, env=bucket.env)
    assert shell.done("stop", "--spool", spool) == f"stopped: process {daemon_of_bucket.pid}\n"


def test_commands_beside_a_daemon_know_its_bucket_from_the_last_start(
    shell: Shell, bucket: Bucket, daemon_of_bucket: Daemon
) -> None:
    digest = httpx.post(daemon_of_bucket.url, content=b"body").text
    env = bucket.server.variables()
    spool = ["--spool", str(daemon_of_bucket.store)]
    token = shell.done("token", "create", "anna", "--permissions", "read", *spool, env=env).strip()
    listed = shell.done("token", "list", *spool, env=env)
    assert "anna" in listed
    link = shell.done("link", digest, *spool, env=env).strip()
    assert httpx.get(link).content == b"body"
    answer = httpx.get(f"{daemon_of_bucket.url}/v1/files", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert "no file is stored" in shell.run("link", "0" * 64, *spool, env=env).said


def test_a_daemon_is_started_again_on_its_bucket(shell: Shell, bucket: Bucket) -> None:
    env = bucket.server.variables()
    place = ["--store", bucket.url, "--spool", "mine", "--bucket-endpoint", bucket.server.endpoint]
    try:
        shell.done("start", *QUIET, *place, env=env)
        first = holder_of(shell.folder / "mine")
        digest = httpx.post(first.address, content=b"kept").text
        shell.done("restart", "--spool", "mine", env=env)
        second = holder_of(shell.folder / "mine")
        assert second.pid != first.pid
        assert httpx.get(f"{second.address}/{digest}").content == b"kept"
    finally:
        shell.run("stop", "--spool", "mine")
    assert running(shell.folder / "mine") is None
    assert not (shell.folder / "store").exists()


def test_a_missing_library_is_told_with_how_to_install_it(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['obstore'] = None\n"
        "sys.argv = ['filestored', 'run', '--store', 's3://bucket/x']\n"
        "from filestored.__main__ import main; main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == "filestored: the library for buckets is not installed: pip install 'filestored[buckets]'\n"


def test_a_misspelled_bucket_does_not_become_a_store_by_a_command(shell: Shell, bucket: Bucket) -> None:
    ended = shell.run("scrub", "--store", f"s3://{bucket.name}/fiels", "--spool", "fresh", env=bucket.env)
    assert (ended.status, "is no store" in ended.said) == (1, True)
    assert bucket.server.get(bucket.name, "fiels/.filestored/format.json") is None


def test_tokens_are_seen_and_revoked_while_the_bucket_is_away(
    shell: Shell, bucket: Bucket, daemon_of_bucket: Daemon
) -> None:
    env = bucket.server.variables()
    spool = ["--spool", str(daemon_of_bucket.store)]
    token = shell.done("token", "create", "anna", "--permissions", "read", *spool, env=env).strip()
    (port,) = free_ports(1)
    away = [*spool, "--bucket-endpoint", f"http://127.0.0.1:{port}"]
    listed = shell.run("token", "list", *away, env=env)
    assert (listed.status, "anna" in listed.output) == (0, True), listed
    assert f"http://127.0.0.1:{port} cannot be reached" in listed.said
    assert shell.run("token", "create", "bert", "--permissions", "read", *away, env=env).status == 0
    assert shell.run("token", "revoke", "anna", *away, env=env).output == "revoked: anna\n"
    headers = {"authorization": f"Bearer {token}"}
    assert wait_until(lambda: httpx.get(f"{daemon_of_bucket.url}/v1/files", headers=headers).status_code == 401)
    # what is about blobs is not done without them
    assert shell.run("scrub", *away, env=env).status == 1


def test_a_command_that_is_refused_leaves_no_spool_behind(
    shell: Shell, bucket: Bucket, daemon_of_bucket: Daemon, database: Database
) -> None:
    env = bucket.server.variables()
    before = {path.name for path in shell.folder.iterdir()}
    place = ["--spool", "fresh", "--bucket-endpoint", bucket.server.endpoint]
    ended = shell.run("token", "list", "--store", f"s3://{bucket.name}/fiels", *place, env=env)
    assert (ended.status, "is no store" in ended.said) == (1, True), ended
    kept = f"the bucket {bucket.url} is kept by another catalogue"
    place += ["--store", bucket.url]
    for words in (["token", "list"], ["token", "create", "x", "--permissions", "read"], ["scrub"], ["import", "."]):
        ended = shell.run(*words, *place, env=env)
        assert (ended.status, kept in ended.said) == (1, True), ended
    for catalogue in ([], ["--catalogue", database.url]):
        for command in ("start", "run"):
            ended = shell.run(command, *QUIET, *place, *catalogue, env=env)
            assert (ended.status, kept in ended.said) == (1, True), ended
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert database.server.execute(database.name, tables) == []
    assert {path.name for path in shell.folder.iterdir()} == before


def test_a_restart_that_cannot_succeed_stops_nothing(shell: Shell, bucket: Bucket) -> None:
    env = bucket.server.variables()
    place = ["--store", bucket.url, "--spool", "mine", "--bucket-endpoint", bucket.server.endpoint]
    try:
        shell.done("start", *QUIET, *place, env=env)
        pid = holder_of(shell.folder / "mine").pid
        for words, told in (
            (["--store", f"s3://{bucket.name}/other"], "is the spool of"),
            (["--store", "s3://nowhere-to-be/x"], "is the spool of"),
            (["--bucket-region", "eu-west-1", "--bucket-endpoint", "http://nowhere.invalid"], "cannot be reached"),
            (["--accel-redirect", "/x"], "--accel-redirect needs a store that is a folder"),
            (["--catalogue", f"sqlite:///{shell.folder}/empty.sqlite3"], "is kept by another catalogue"),
        ):
            ended = shell.run("restart", "--spool", "mine", *words, env=env)
            assert ended.status in (1, 2), ended
            assert told in ended.said
            assert holder_of(shell.folder / "mine").pid == pid
        assert not (shell.folder / "empty.sqlite3").exists()
    finally:
        shell.run("stop", "--spool", "mine")


def test_an_endpoint_of_the_environment_is_named(shell: Shell, bucket: Bucket) -> None:
    (port,) = free_ports(1)
    env = {**bucket.server.variables(), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    assert f"http://127.0.0.1:{port} cannot be reached: connection refused" in refused(
        shell, "--store", bucket.url, env=env
    )


def test_a_spool_that_is_not_there_is_told_by_its_own_option(shell: Shell) -> None:
    for words in (["token", "list"], ["token", "create", "anna", "--permissions", "read"]):
        ended = shell.run(*words, "--spool", "nowhere")
        assert ended.status == 1
        assert "there is no spool at" in ended.said
        assert "--spool" in ended.said
    assert list(shell.folder.iterdir()) == []


def test_the_settings_show_what_commands_know_from_the_last_start(
    shell: Shell, bucket: Bucket, daemon_of_bucket: Daemon
) -> None:
    shown = json.loads(shell.done("config", "--json", "--spool", str(daemon_of_bucket.store)))
    assert shown["bucket_endpoint"] == {"value": bucket.server.endpoint, "origin": "last start"}
    assert shown["store"]["origin"] == "last start"
    assert shown["spool"]["origin"] == "flag"
    lines = shell.done("config", "--spool", str(daemon_of_bucket.store)).splitlines()
    assert next(line.split() for line in lines if line.startswith("store ")) == ["store", bucket.url, "last", "start"]
    # what is given counts
    given = json.loads(shell.done("config", "--json", "--spool", str(daemon_of_bucket.store), "--store", "here"))
    assert given["store"]["origin"] == "flag"

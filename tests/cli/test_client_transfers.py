"""``put`` and ``get`` of single files, and how they fail."""

import hashlib
import json
import os
import re
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.cli.calling import Shell, command, environment
from tests.conftest import EVERYTHING, StartDaemon
from tests.tokens import make_token


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def get(shell: Shell, digest: str) -> bytes:
    return httpx.get(f"{shell.url}/{digest}").raise_for_status().content


def require_one_line(said: str) -> None:
    assert re.fullmatch(r"filestored: [^\n]+\n", said), said
    assert "Traceback" not in said


def test_one_file_prints_its_hash_alone_and_comes_back_under_its_name(shell: Shell) -> None:
    (shell.folder / "hello.txt").write_bytes(b"hello\n")
    assert shell.done("put", "hello.txt") == sha256(b"hello\n") + "\n"
    assert get(shell, sha256(b"hello\n")) == b"hello\n"
    (shell.folder / "hello.txt").unlink()
    assert shell.done("get", sha256(b"hello\n")) == "hello.txt\n"
    assert (shell.folder / "hello.txt").read_bytes() == b"hello\n"


@pytest.mark.parametrize("size", [0, 1, 300_000, 2_000_000, 20_000_000])
def test_files_of_any_size_go_and_come_back(shell: Shell, size: int) -> None:
    content = os.urandom(size)
    (shell.folder / "f").write_bytes(content)
    digest = shell.done("put", "f").strip()
    assert digest == sha256(content)
    shell.done("get", digest, "-o", "copy")
    assert (shell.folder / "copy").read_bytes() == content
    assert sorted(path.name for path in shell.folder.iterdir() if path.name != ".local") == ["copy", "f"]


def test_several_files_are_printed_in_order_as_sha256sum_reads_them(shell: Shell) -> None:
    names = ["large", "b\nc", "back\\slash", "-dash", "a"]
    for name in names:
        (shell.folder / name).write_bytes(os.urandom(3_000_000 if name == "large" else 10))
    output = shell.done("put", "--", *names)
    assert [line[-1] for line in output.splitlines()] == ["e", "c", "h", "h", "a"]
    (shell.folder / "sums").write_text(output)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "sums"], cwd=shell.folder, check=True, timeout=60)


def test_name_type_and_life_can_be_said_also_of_what_is_stored_already(shell: Shell) -> None:
    (shell.folder / "f").write_bytes(b"x")
    digest = shell.done("put", "f", "--expires-in", "1h").strip()
    shell.done("put", "f", "--name", "other.bin", "--type", "text/csv", "--expires-in", "2d")
    said = json.loads(shell.done("info", digest, "--json"))
    assert (said["name"], said["type"]) == ("other.bin", "text/csv")
    assert said["expires_at"] is not None


def test_standard_input_and_output(shell: Shell) -> None:
    for content in (b"", b"from a pipe", os.urandom(30_000_000)):
        digest = shell.done("put", "-", "--name", "piped", stdin=content).strip()
        assert digest == sha256(content)
        assert json.loads(shell.done("info", digest, "--json"))["name"] == "piped"
        with (shell.folder / "out").open("wb") as out:
            ended = subprocess.run(
                command("get", digest, "-o", "-"), stdout=out, stderr=subprocess.PIPE, timeout=60,
                env=environment(shell.url, shell.folder),
            )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert (shell.folder / "out").read_bytes() == content


def test_several_files_to_standard_output_come_one_after_the_other(shell: Shell) -> None:
    digests = [shell.done("put", "-", stdin=text).strip() for text in (b"one ", b"two ", b"three")]
    assert shell.done("get", *digests, "-o", "-") == "one two three"


def test_a_pipe_is_stored_like_a_file(shell: Shell) -> None:
    os.mkfifo(shell.folder / "pipe")
    sending = shell.begin("put", "pipe")
    with (shell.folder / "pipe").open("wb") as pipe:
        pipe.write(b"through a pipe")
    output, said = sending.communicate(timeout=60)
    assert (sending.returncode, output.decode().strip(), said) == (0, sha256(b"through a pipe"), b"")


def test_json_has_an_object_a_line(shell: Shell) -> None:
    (shell.folder / "a").write_bytes(b"a")
    (shell.folder / "b").write_bytes(b"b" * 2_000_000)
    said = [json.loads(line) for line in shell.done("put", "a", "b", "--json").splitlines()]
    assert [(each["path"], each["hash"], each["size"], each["is_new"]) for each in said] == [
        ("a", sha256(b"a"), 1, True), ("b", sha256(b"b" * 2_000_000), 2_000_000, True),
    ]  # fmt: skip
    again = [json.loads(line) for line in shell.done("put", "a", "b", "--json").splitlines()]
    assert [each["is_new"] for each in again] == [False, False]
    (got,) = [json.loads(line) for line in shell.done("get", sha256(b"a"), "-o", "c", "--json").splitlines()]
    assert (got["hash"], got["size"], got["name"], got["path"]) == (sha256(b"a"), 1, "a", "c")


def test_several_files_come_into_a_folder_each_under_its_name(shell: Shell) -> None:
    for name in ("a", "b", "c"):
        (shell.folder / name).write_text(name)
    digests = [line.split()[0] for line in shell.done("put", "a", "b", "c").splitlines()]
    (shell.folder / "into").mkdir()
    assert shell.done("get", *digests, "-o", "into").splitlines() == ["into/a", "into/b", "into/c"]
    assert [(shell.folder / "into" / name).read_text() for name in "abc"] == ["a", "b", "c"]


def test_another_file_is_replaced_only_by_force(shell: Shell) -> None:
    digest = shell.done("put", "-", "--name", "f", stdin=b"stored").strip()
    (shell.folder / "f").write_bytes(b"mine")
    ended = shell.run("get", digest)
    assert (ended.status, ended.output) == (7, "")
    require_one_line(ended.said)
    assert (shell.folder / "f").read_bytes() == b"mine"
    shell.done("get", digest, "--force")
    assert (shell.folder / "f").read_bytes() == b"stored"
    # what is there already counts as done
    assert shell.done("get", digest) == "f\n"


def test_a_name_from_the_server_is_never_a_path(shell: Shell) -> None:
    (shell.folder / "in").mkdir()
    for number, name in enumerate(["../up", "/abs", "..", ".", "a/b", "~", "-rf", "\x1b[31mred"]):
        content = b"content %d" % number
        answer = httpx.post(f"{shell.url}/v1/files", content=content, params={"name": name})
        shell.done("get", sha256(content), "-o", "in")
        assert answer.status_code == 201
    assert {path.name for path in shell.folder.iterdir()} <= {"in", ".local"}
    assert len(list((shell.folder / "in").iterdir())) == 8
    assert all(path.name.isprintable() for path in (shell.folder / "in").iterdir())


def test_files_that_cannot_be_read_are_a_line_each_and_the_others_go_on(shell: Shell) -> None:
    (shell.folder / "a").write_text("a")
    (shell.folder / "d").mkdir()
    ended = shell.run("put", "none", "a", "d")
    assert ended.status == 7
    assert ended.output == f"{sha256(b'a')}  a\n"
    assert ended.said.splitlines() == [
        "filestored: none: No such file or directory",
        "filestored: d: it is a folder; use -r to send what is in it",
    ]


def test_hashes_that_are_not_stored_are_exit_status_3(shell: Shell) -> None:
    absent = "0" * 64
    for words in (["get", absent], ["info", absent], ["rm", absent], ["link", absent], ["get", absent, "-o", "-"]):
        ended = shell.run(*words)
        assert (ended.status, ended.output) == (3, "")
        require_one_line(ended.said)
    assert list(shell.folder.iterdir()) == []


def test_several_reasons_at_once_are_exit_status_1(shell: Shell) -> None:
    digest = shell.done("put", "-", "--name", "f", stdin=b"stored").strip()
    (shell.folder / "f").write_bytes(b"mine")
    ended = shell.run("get", "0" * 64, digest, "1" * 64)
    assert ended.status == 1
    assert len(ended.said.splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["put"], "FILE"),
        (["get"], "hashes"),
        (["get", "0" * 64, "--manifest", "m"], "manifest"),
        (["get", "0" * 64, "1" * 64, "-o", "f"], "folder"),
        (["get", "0" * 64, "-o", "-", "--json"], "-o -"),
        (["put", "f", "--expires-in", "soon"], "--expires-in soon"),
        (["put", "f", "g", "--name", "n"], "--name"),
        (["put", "-", "f"], "standard input"),
        (["put", "f", "--jobs", "0"], "--jobs"),
        (["put", "f", "--timeout", "never"], "--timeout never"),
        (["put", "f", "--url", "ftp://x"], "--url ftp://x"),
        (["put", "f", "--url", "http://user:secret@x"], "--token-file"),
        (["put", "f", "--server", "nobody"], "no server nobody"),
        (["put", "f", "--token", "a b"], "no token"),
        (["put", "f", "--token", "a", "--token-file", "b"], "one is enough"),
        (["put", "f", "--token-file", "/no/such"], "/no/such"),
        (["put", "f", "--ca-file", "/no/such"], "/no/such"),
        (["ls", "--sort", "colour"], "--sort"),
        (["ls", "--limit", "0"], "--limit"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_2(tmp_path: Path, words: list[str], said: str) -> None:
    ended = Shell("http://localhost:1", tmp_path).run(*words)
    assert (ended.status, ended.output) == (2, "")
    require_one_line(ended.said)
    assert said in ended.said
    assert "secret" not in ended.said


def test_no_server_is_one_line_and_exit_status_5(tmp_path: Path) -> None:
    nowhere = Shell("http://127.0.0.1:1", tmp_path)
    (tmp_path / "f").write_text("x")
    for words in (["put", "f"], ["put", "-"], ["put", "-r", "."], ["get", "0" * 64], ["ls"], ["info", "0" * 64]):
        ended = nowhere.run(*words)
        assert ended.status == 5
        require_one_line(ended.said)
        assert "127.0.0.1:1" in ended.said
    assert nowhere.run("put", "f", url="https://no-such-host.invalid").status == 5


def test_what_is_no_filestored_is_said_so(tmp_path: Path, start_daemon: StartDaemon) -> None:
    # a path below a server leads to no server
    (tmp_path / "f").write_text("x")
    ended = Shell(f"{start_daemon().url}/elsewhere", tmp_path).run("put", "f", "f")
    assert ended.status == 1
    require_one_line(ended.said)


def test_wrong_and_weak_tokens_are_one_line_and_exit_status_4(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    reader = make_token(store, "reader", "read")
    url = start_daemon("--workers", "1", store=store).url
    home = tmp_path / "home"
    home.mkdir()
    for number in range(200):
        (home / f"f{number}").write_text(str(number))
    for token in ("", "wrong", reader):
        env = {"FILESTORED_TOKEN": token} if token else {}
        for words in (["put", "f1"], ["put", *(f"f{number}" for number in range(200))], ["put", "-r", "."]):
            ended = Shell(url, home).run(*words, env=env)
            assert ended.status == 4
            require_one_line(ended.said)
    assert Shell(url, home).run("ls", env={"FILESTORED_TOKEN": reader}).status == 0
    assert Shell(url, home).run("rm", "0" * 64, env={"FILESTORED_TOKEN": reader}).status == 4


def test_a_quota_refuses_the_files_beyond_it_and_takes_the_others(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    token = make_token(store, "small", "read,write", quota=100_000)
    shell = Shell(start_daemon("--workers", "1", store=store).url, tmp_path / "home")
    shell.folder.mkdir()
    for number in range(10):
        (shell.folder / f"f{number}").write_bytes(os.urandom(30_000))
    ended = shell.run("put", *(f"f{number}" for number in range(10)), env={"FILESTORED_TOKEN": token})
    assert ended.status == 1
    assert len(ended.output.splitlines()) == 3
    assert len(ended.said.splitlines()) == 7
    assert all(re.match(r"filestored: f\d: ", line) for line in ended.said.splitlines())


def test_damaged_bytes_are_exit_status_6_and_leave_no_file(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    shell = Shell(daemon.url, tmp_path / "home")
    shell.folder.mkdir()
    digest = shell.done("put", "-", "--name", "f", stdin=b"right" * 50_000).strip()
    blob = daemon.blob(digest)
    blob.chmod(0o600)
    blob.write_bytes(b"wrong" * 50_000)
    ended = shell.run("get", digest)
    assert (ended.status, ended.output) == (6, "")
    require_one_line(ended.said)
    assert [path.name for path in shell.folder.iterdir() if path.name != ".local"] == []


def test_a_full_local_disk_is_exit_status_7_and_nothing_is_lost(shell: Shell, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "filestored-test", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        assert not EVERYTHING or os.geteuid(), mounted.stderr
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        (shell.folder / "d").mkdir()
        for name, size in (("large", 1_000_000), ("small", 1000)):
            (shell.folder / "d" / name).write_bytes(os.urandom(size))
        manifest = shell.done("put", "-r", "d")
        digest = sha256((shell.folder / "d" / "large").read_bytes())
        ended = shell.run("get", digest, "-o", disk)
        assert ended.status == 7
        require_one_line(ended.said)
        assert "room" in ended.said or "space" in ended.said
        ended = shell.run("get", "--manifest", "-", "-o", disk, stdin=manifest.encode())
        assert ended.status == 7
        require_one_line(ended.said)
        assert (disk / "small").read_bytes() == (shell.folder / "d" / "small").read_bytes()
        assert [path.name for path in disk.iterdir() if not path.name.startswith(".")] == ["small"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_to_is_exit_status_7(shell: Shell) -> None:
    digest = shell.done("put", "-", stdin=b"x").strip()
    ended = shell.run("get", digest, "-o", "/no/such/folder/f")
    assert ended.status == 7
    require_one_line(ended.said)
    ended = shell.run("put", "-r", ".", "--manifest", "/no/such/folder/m.json")
    assert ended.status == 7
    require_one_line(ended.said)


def test_permissions_of_what_is_fetched_are_those_of_new_files(shell: Shell) -> None:
    digest = shell.done("put", "-", "--name", "f", stdin=b"x").strip()
    shell.done("get", digest)
    (shell.folder / "new").touch()
    modes = [stat.S_IMODE((shell.folder / name).stat().st_mode) for name in ("f", "new")]
    assert modes[0] == modes[1]

"""The file of a manifest: what it takes the place of and what not, and what manifests from elsewhere may say."""

import base64
import json
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.cli.calling import Shell, command, environment
from tests.cli.test_client_transfers import require_one_line, sha256
from tests.conftest import EVERYTHING, Daemon
from tests.processes import wait_until

# root without what lets it read everything
LIKE_OTHERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.fixture
def tree(shell: Shell) -> Path:
    (shell.folder / "tree").mkdir()
    (shell.folder / "tree" / "f").write_text("f")
    return shell.folder / "tree"


def run_heeding_modes(shell: Shell, *words: str) -> "subprocess.CompletedProcess[str]":
    before: list[str] = []
    if os.geteuid() == 0:
        before = LIKE_OTHERS
        if not shutil.which("setpriv") or subprocess.run([*before, "true"], capture_output=True).returncode:
            assert not EVERYTHING, "setpriv (util-linux) cannot take root's capabilities away"
            pytest.skip("root cannot be made to heed modes here")
    return subprocess.run(
        [*before, *command(*words)], capture_output=True, text=True, timeout=60, cwd=shell.folder,
        env=environment(shell.url, shell.folder),
    )  # fmt: skip


def paths_in(manifest: str | bytes) -> list[str]:
    return [entry["path"] for entry in json.loads(manifest)["entries"]]


def test_a_pipe_is_written_to_and_stays_one(shell: Shell, tree: Path) -> None:
    os.mkfifo(shell.folder / "pipe")
    sending = shell.begin("put", "-r", "tree", "--manifest", "pipe")
    text = (shell.folder / "pipe").read_text()
    assert sending.communicate(timeout=60) == (b"", b"")
    assert sending.returncode == 0
    assert paths_in(text) == ["f"]
    assert stat.S_ISFIFO(os.lstat(shell.folder / "pipe").st_mode)
    text = subprocess.run(
        ["bash", "-c", '"$@" --manifest >(cat) | cat', "-", *command("put", "-r", "tree")], check=True, timeout=60,
        cwd=shell.folder, env=environment(shell.url, shell.folder), capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert paths_in(text) == ["f"]


def test_a_device_is_written_to_and_stays_one(shell: Shell, tree: Path) -> None:
    device = shell.folder / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        assert not EVERYTHING or os.geteuid(), "root may make no devices here"
        pytest.skip("only root may make devices")
    ended = shell.run("put", "-r", "tree", "--manifest", "null")
    assert stat.S_ISCHR(os.lstat(device).st_mode)
    # 7 where the file system has no devices
    assert ended.status in (0, 7)


def test_a_link_stays_and_its_target_keeps_its_mode(shell: Shell, tree: Path) -> None:
    (shell.folder / "kept").mkdir()
    target = shell.folder / "kept" / "m.json"
    target.write_text("old")
    target.chmod(0o600)
    (shell.folder / "m.json").symlink_to("kept/m.json")
    shell.done("put", "-r", "tree", "--manifest", "m.json")
    assert (shell.folder / "m.json").is_symlink()
    assert paths_in(target.read_text()) == ["f"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(shell.folder / "kept") == ["m.json"]


def test_a_folder_is_no_place_for_a_manifest(shell: Shell, tree: Path) -> None:
    ended = shell.run("put", "-r", "tree", "--manifest", "tree")
    assert ended.status == 7
    require_one_line(ended.said)
    assert os.listdir(tree) == ["f"]


def test_a_failure_leaves_the_manifest_of_before(shell: Shell, tree: Path) -> None:
    shell.done("put", "-r", "tree", "--manifest", "m.json")
    before = (shell.folder / "m.json").read_bytes()
    ended = shell.run("put", "-r", "tre", "--manifest", "m.json")
    assert ended.status == 7
    assert (shell.folder / "m.json").read_bytes() == before
    os.mkfifo(tree / "pipe")
    (tree / "g").write_text("g")
    ended = shell.run("put", "-r", "tree", "--manifest", "m.json")
    assert ended.status == 7
    assert "m.json is as it was" in ended.said
    assert (shell.folder / "m.json").read_bytes() == before
    assert paths_in((shell.folder / "m.json.incomplete").read_bytes()) == ["f", "g"]
    (tree / "pipe").unlink()
    shell.done("put", "-r", "tree", "--manifest", "m.json")
    assert paths_in((shell.folder / "m.json").read_bytes()) == ["f", "g"]


def test_a_file_that_cannot_be_read_is_reported_and_the_others_go_on(shell: Shell) -> None:
    for name in ("a", "b", "c"):
        (shell.folder / name).write_text(name)
        (shell.folder / name).chmod(0o644)
    (shell.folder / "b").chmod(0o000)
    said = run_heeding_modes(shell, "put", "a", "b", "c")
    assert said.returncode == 7
    assert said.stdout.split() == [sha256(b"a"), "a", sha256(b"c"), "c"]
    require_one_line(said.stderr)
    assert "b: Permission denied" in said.stderr


def test_the_end_of_a_terminal_leaves_nothing_behind(shell: Shell, tree: Path) -> None:
    os.mkfifo(shell.folder / "pipe")
    sending = shell.begin("put", "tree/f", "pipe", "--manifest", "m.json")
    assert wait_until(lambda: any(shell.folder.glob(".filestored-manifest.*")))
    # once it reads the pipe, it is at work
    with (shell.folder / "pipe").open("wb"):
        sending.send_signal(signal.SIGHUP)
        _, said = sending.communicate(timeout=60)
    assert (sending.returncode, said) == (129, b"filestored: interrupted; the same command goes on from here\n")
    assert not any(shell.folder.glob(".filestored-manifest.*"))


def test_what_other_runs_have_under_way_is_left_out(shell: Shell, tree: Path) -> None:
    for name in (".filestored-manifest.abc_1234", f".f.{'0' * 16}.part", f".f.{'0' * 16}.part.{'1' * 16}"):
        (tree / name).write_text("half")
    # names that are only like those
    for name in (".manifest.mine", ".f.part", ".filestored-notes.txt"):
        (tree / name).write_text("mine")
    assert paths_in(shell.done("put", "-r", "tree")) == [".f.part", ".filestored-notes.txt", ".manifest.mine", "f"]


def test_a_size_that_is_not_the_files_is_refused(shell: Shell, tree: Path) -> None:
    (shell.folder / "tree" / "twin").write_text("f")
    said = json.loads(shell.done("put", "-r", "tree"))
    said["entries"][0]["size"] = 2
    ended = shell.run("get", "--manifest", "-", "-o", "back", stdin=json.dumps(said).encode())
    assert ended.status == 6
    require_one_line(ended.said)
    assert os.listdir(shell.folder / "back") == ["twin"]
    said["entries"][0]["size"], said["entries"][1]["size"] = 1, 3
    ended = shell.run("get", "--manifest", "-", "-o", "back2", stdin=json.dumps(said).encode())
    assert ended.status == 6
    assert os.listdir(shell.folder / "back2") == ["f"]


def test_names_that_are_no_text_are_json_that_can_be_read(shell: Shell) -> None:
    name = os.fsdecode(b"\xff")
    (shell.folder / name).write_text("x")
    said = json.loads(shell.done("put", name, "--json").encode())
    assert base64.b64decode(said["path_base64"]) == b"\xff"
    assert "path" not in said
    (got,) = shell.done("get", sha256(b"x"), "-o", os.fsdecode(b"\xfe"), "--json").splitlines()
    assert base64.b64decode(json.loads(got)["path_base64"]) == b"\xfe"


@pytest.mark.parametrize(
    "words",
    [
        ["put", "-r", "tree", "--manifest", "-", "--json"],
        ["put", "-r", "tree", "--manifest", ""],
        ["put", "tree/f", "--name", ""],
        ["put", "tree/f", "--type", "text"],
        ["put", "tree/f", "--token-file", ""],
        ["get", "0" * 64, "-o", ""],
        ["get", "zz"],
        ["rm", "zz"],
        ["info", "zz"],
        ["link", "zz"],
    ],
)
def test_what_makes_no_sense_is_refused(shell: Shell, tree: Path, words: list[str]) -> None:
    ended = shell.run(*words)
    assert (ended.status, ended.output) == (2, "")
    require_one_line(ended.said)


@pytest.mark.parametrize("words", [["ls"], ["put", "tree/f"], ["put", "-r", "tree"], ["put", "-"]])
def test_an_address_of_something_else_is_not_a_hash_that_is_not_stored(
    daemon: Daemon, shell: Shell, tree: Path, words: list[str]
) -> None:
    ended = shell.run(*words, url=f"{daemon.url}/elsewhere", stdin=b"x")
    assert ended.status == 1
    assert "check the address" in ended.said


def test_files_that_their_owner_may_not_read_are_compared_and_stay_so(shell: Shell, tree: Path) -> None:
    (tree / "twin").write_text("f")
    said = json.loads(shell.done("put", "-r", "tree"))
    for entry in said["entries"]:
        entry["mode"] = "0200"
    (shell.folder / "m.json").write_text(json.dumps(said))
    for _ in range(2):
        ended = run_heeding_modes(shell, "get", "--manifest", "m.json", "-o", "back")
        assert (ended.returncode, ended.stderr) == (0, "")
        for name in ("f", "twin"):
            assert stat.S_IMODE((shell.folder / "back" / name).stat().st_mode) == 0o200


def test_a_folder_that_a_manifest_does_not_name_keeps_its_mode(shell: Shell, tree: Path) -> None:
    said = json.loads(shell.done("put", "-r", "tree"))
    said["entries"][0]["path"] = "closed/f"
    (shell.folder / "back" / "closed").mkdir(parents=True)
    (shell.folder / "back" / "closed").chmod(0o555)
    shell.done("get", "--manifest", "-", "-o", "back", stdin=json.dumps(said).encode())
    assert (shell.folder / "back" / "closed" / "f").read_text() == "f"
    assert stat.S_IMODE((shell.folder / "back" / "closed").stat().st_mode) == 0o555


def test_no_folder_is_made_where_no_server_answers(shell: Shell, tree: Path) -> None:
    manifest = shell.done("put", "-r", "tree").encode()
    ended = shell.run("get", "--manifest", "-", "-o", "back", stdin=manifest, url="http://127.0.0.1:1")
    assert ended.status == 5
    assert not (shell.folder / "back").exists()


def test_a_server_without_tls_is_one_line_that_says_what_to_try(shell: Shell) -> None:
    ended = shell.run("ls", url=shell.url.replace("http://", "https://"))
    assert ended.status == 5
    require_one_line(ended.said)
    assert "try http://" in ended.said


def test_a_stream_is_not_said_to_go_on(shell: Shell) -> None:
    sending = subprocess.Popen(
        command("put", "-"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=shell.folder,
        env=environment(shell.url, shell.folder), pipesize=65536,
    )  # fmt: skip
    assert sending.stdin is not None
    # more than a pipe holds: once it is written, the command is at work
    sending.stdin.write(bytes(1_000_000))
    sending.stdin.flush()
    sending.send_signal(signal.SIGTERM)
    assert sending.communicate(timeout=60)[1] == b"filestored: interrupted\n"
    assert sending.returncode == 143


def test_help_says_what_a_dash_stands_for(shell: Shell) -> None:
    assert "standard input" in shell.done("put", "--help").partition("Options")[0]
    assert "admin" in shell.done("ls", "--help").partition("Options")[0]


def test_a_server_is_not_added_with_certificates_that_are_not_there(shell: Shell) -> None:
    ended = shell.run("server", "add", "own", "https://files.example", "--ca-file", "no.pem")
    assert ended.status == 2
    assert "no.pem: the certificates cannot be read" in ended.said
    assert shell.done("server", "list") == ""

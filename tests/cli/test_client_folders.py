"""``put -r`` and ``get --manifest``: whole folders, odd names, links, and manifests that mean harm."""

import base64
import json
import os
import re
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.cli.calling import Shell, command, environment
from tests.cli.test_client_transfers import require_one_line, sha256
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until

ODD_NAMES = [
    b"new\nline", b"\xff\xfe", b"-dash", "\N{GRINNING FACE} \N{CYRILLIC SMALL LETTER YA}".encode(), b"tab\t", b"a b",
    b"back\\slash", b'"', b"\x1b[31mred", b"...", b".hidden", b"n" * 255,
    "\N{GRINNING FACE}".encode() * 63,
]  # fmt: skip


def state_of(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Return what a folder holds: kinds, modes, times to the nanosecond, contents and targets."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            inner = os.path.join(path, name)
            status = os.lstat(inner)
            content: bytes = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(inner)
            elif stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(inner)).read_bytes()
            found[os.path.relpath(inner, os.fsencode(folder))] = status.st_mode, status.st_mtime_ns, content
    return found


def log_of(daemon: Daemon) -> str:
    """Return the log up to now; one worker writes its lines in order, but a moment later."""
    marker = os.urandom(32).hex()
    httpx.get(f"{daemon.url}/{marker}")
    assert wait_until(lambda: marker in daemon.log.read_text())
    return daemon.log.read_text()


def make_tree(folder: Path) -> None:
    folder.mkdir()
    for number, name in enumerate(ODD_NAMES):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(b"odd %d" % number)
    deep = folder / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (folder / "empty").mkdir()
    (deep / "large").write_bytes(os.urandom(3_000_000))
    (deep / "twin").write_bytes((deep / "large").read_bytes())
    (deep / "nothing").touch()
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "script").chmod(0o750)
    (folder / "secret").write_text("s")
    (folder / "secret").chmod(0o600)
    (folder / "link").symlink_to("a/b/c/large")
    (folder / "a" / "up").symlink_to("../script")
    (folder / "dangling").symlink_to("a/nowhere")
    (folder / "a" / "folder").symlink_to("b/c")
    os.utime(folder / "script", ns=(1, 981173106123456789))
    os.utime(folder / "link", ns=(1, 981173106123456780), follow_symlinks=False)
    (folder / "empty").chmod(0o500)
    for path in (folder / "empty", deep, folder / "a"):
        os.utime(path, ns=(5, 1_000_000_000_000_000_007))


def test_a_folder_comes_back_as_it_was(shell: Shell) -> None:
    make_tree(shell.folder / "tree")
    shell.done("put", "-r", "tree", "--manifest", "m.json")
    shell.done("get", "--manifest", "m.json", "-o", "back")
    assert state_of(shell.folder / "back") == state_of(shell.folder / "tree")
    # once more: all is there already, in the way of nothing
    shell.done("get", "--manifest", "m.json", "-o", "back")
    assert state_of(shell.folder / "back") == state_of(shell.folder / "tree")


def test_the_manifest_is_json_with_relative_paths(shell: Shell) -> None:
    make_tree(shell.folder / "tree")
    said = json.loads(shell.done("put", "-r", shell.folder / "tree"))
    assert (said["filestored_manifest"], said["algorithm"]) == (1, "sha256")
    by_path = {entry.get("path") or base64.b64decode(entry["path_base64"]): entry for entry in said["entries"]}
    assert by_path["script"] == {
        "type": "file", "path": "script", "hash": sha256(b"#!/bin/sh\n"), "size": 10, "mode": "0750",
        "mtime_ns": 981173106123456789,
    }  # fmt: skip
    assert by_path["empty"]["type"] == "folder"
    assert by_path["a/up"]["target"] == "../script"
    assert by_path[b"\xff\xfe"]["size"] == 5
    paths = [entry.get("path", "") for entry in said["entries"]]
    assert paths.index("a") < paths.index("a/b") < paths.index("a/b/c/large")


def test_setuid_is_neither_kept_nor_restored(shell: Shell) -> None:
    (shell.folder / "d").mkdir()
    (shell.folder / "d" / "f").write_text("x")
    (shell.folder / "d" / "f").chmod(0o6755)
    said = json.loads(shell.done("put", "-r", "d"))
    assert said["entries"][0]["mode"] == "0755"
    said["entries"][0]["mode"] = "06755"
    shell.done("get", "--manifest", "-", "-o", "back", stdin=json.dumps(said).encode())
    assert stat.S_IMODE((shell.folder / "back" / "f").stat().st_mode) == 0o755


def test_links_out_of_the_folder_and_special_files_are_reported_and_left_out(shell: Shell) -> None:
    tree = shell.folder / "tree"
    (tree / "sub").mkdir(parents=True)
    (shell.folder / "outside").write_text("not to be sent")
    for place, target in (
        ("absolute", "/etc/passwd"), ("up", "../outside"), ("sub/over", "../../outside"), ("self", str(tree / "sub")),
    ):  # fmt: skip
        (tree / place).symlink_to(target)
    # inside by its letters, outside by way of another link
    (tree / "sub" / "top").symlink_to("..")
    (tree / "winding").symlink_to("sub/top/../outside")
    os.mkfifo(tree / "pipe")
    (tree / "good").write_text("good")
    ended = shell.run("put", "-r", "tree")
    assert ended.status == 7
    assert [entry["path"] for entry in json.loads(ended.output)["entries"]] == ["good", "sub", "sub/top"]
    assert sorted(line.split(":")[1].strip() for line in ended.said.splitlines()) == [
        "tree/absolute", "tree/pipe", "tree/self", "tree/sub/over", "tree/up", "tree/winding",
    ]  # fmt: skip
    assert httpx.get(f"{shell.url}/{sha256(b'not to be sent')}").status_code == 404


def test_what_cannot_be_read_is_reported_and_the_rest_is_stored(shell: Shell) -> None:
    tree = shell.folder / "tree"
    tree.mkdir()
    (tree / "good").write_text("good")
    # a name as long as there can be, below a path that is longer than there can be, cannot be opened even by root
    place = os.open(tree, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=place)
        inner = os.open("n" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    ended = shell.run("put", "-r", "tree")
    assert ended.status == 7
    require_one_line(ended.said)
    assert json.loads(ended.output)["entries"][0]["path"] == "good"


def test_several_folders_and_files_have_their_names_before_their_paths(shell: Shell) -> None:
    for place in ("one/f", "x/two/f"):
        (shell.folder / place).parent.mkdir(parents=True)
        (shell.folder / place).write_text(place)
    (shell.folder / "g").write_text("g")
    said = json.loads(shell.done("put", "-r", "one", "x/two", "g"))
    assert [entry["path"] for entry in said["entries"]] == ["one", "one/f", "two", "two/f", "g"]
    (shell.folder / "x" / "one").mkdir()
    (shell.folder / "x" / "g").write_text("other")
    ended = shell.run("put", "-r", "one", "x/one", "g", "x/g")
    assert ended.status == 1
    assert len(ended.said.splitlines()) == 2
    assert [entry["path"] for entry in json.loads(ended.output)["entries"]] == ["one", "one/f", "g"]


def test_a_manifest_in_the_folder_itself_is_not_part_of_it(shell: Shell) -> None:
    (shell.folder / "f").write_text("f")
    for _ in range(2):
        shell.done("put", "-r", ".", "--manifest", "m.json")
        said = json.loads((shell.folder / "m.json").read_text())
        assert [entry["path"] for entry in said["entries"] if entry["type"] == "file"] == ["f"]
    (shell.folder / "m.json").unlink()
    with (shell.folder / "out.json").open("wb") as out:
        subprocess.run(
            command("put", "-r", "."), stdout=out, check=True, cwd=shell.folder, timeout=60,
            env=environment(shell.url, shell.folder),
        )  # fmt: skip
    said = json.loads((shell.folder / "out.json").read_text())
    assert [entry["path"] for entry in said["entries"] if entry["type"] == "file"] == ["f"]


def test_thousands_of_files_go_in_few_requests_and_not_again(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    shell = Shell(daemon.url, tmp_path / "home")
    tree = shell.folder / "tree"
    for number in range(3000):
        path = tree / f"{number % 7}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % (number // 2))
    shell.done("put", "-r", "tree", "--manifest", "m.json")
    stats = httpx.get(f"{shell.url}/v1/stats").json()
    assert (stats["files"], stats["blobs"]) == (1500, 1500)
    first = log_of(daemon).count(" POST /v1/files ")
    assert 1500 // 64 <= first < 500
    shell.done("put", "-r", "tree", "--manifest", "m2.json")
    assert log_of(daemon).count(" POST /v1/files ") == first
    assert (shell.folder / "m.json").read_bytes() == (shell.folder / "m2.json").read_bytes()
    before = len(log_of(daemon))
    shell.done("get", "--manifest", "m.json", "-o", "back")
    assert state_of(shell.folder / "back") == state_of(tree)
    # each content was fetched once; one more is how the log is read
    assert len(re.findall(" GET /[0-9a-f]{64}", log_of(daemon)[before:])) == 1500 + 1


def test_only_what_is_not_there_is_fetched(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    shell = Shell(daemon.url, tmp_path / "home")
    shell.folder.mkdir()
    make_tree(shell.folder / "tree")
    shell.done("put", "-r", "tree", "--manifest", "m.json")
    shell.done("get", "--manifest", "m.json", "-o", "back")
    (shell.folder / "back" / "script").unlink()
    (shell.folder / "back" / "a" / "b" / "c" / "twin").unlink()
    before = len(log_of(daemon))
    shell.done("get", "--manifest", "m.json", "-o", "back")
    asked = log_of(daemon)[before:]
    assert state_of(shell.folder / "back") == state_of(shell.folder / "tree")
    # its twin was there still; one more is how the log is read
    assert re.findall(" GET /([0-9a-f]{64})", asked)[:-1] == [sha256(b"#!/bin/sh\n")]


def test_other_files_in_the_way_are_replaced_only_by_force(shell: Shell) -> None:
    make_tree(shell.folder / "tree")
    shell.done("put", "-r", "tree", "--manifest", "m.json")
    back = shell.folder / "back"
    back.mkdir()
    (back / "script").write_text("mine")
    (back / "secret").symlink_to("/etc/passwd")
    (back / "link").write_text("no link")
    ended = shell.run("get", "--manifest", "m.json", "-o", "back")
    assert ended.status == 7
    assert sorted(line.split(":")[1].strip() for line in ended.said.splitlines()) == [
        "back/link", "back/script", "back/secret",
    ]  # fmt: skip
    assert (back / "script").read_text() == "mine"
    assert os.readlink(back / "secret") == "/etc/passwd"
    shell.done("get", "--manifest", "m.json", "-o", "back", "--force")
    assert state_of(back) == state_of(shell.folder / "tree")
    assert Path("/etc/passwd").read_text() != "s"


def test_a_file_that_is_gone_from_the_server_is_one_line_with_its_path(shell: Shell) -> None:
    make_tree(shell.folder / "tree")
    shell.done("put", "-r", "tree", "--manifest", "m.json")
    shell.done("rm", sha256(b"s"))
    ended = shell.run("get", "--manifest", "m.json", "-o", "back")
    assert ended.status == 3
    require_one_line(ended.said)
    assert ended.said.startswith("filestored: secret: ")
    assert (shell.folder / "back" / "script").exists()


GOOD = {"type": "file", "path": "good", "hash": "0" * 64, "size": 1, "mode": "0644", "mtime_ns": 0}


def hostile(*entries: dict[str, object]) -> bytes:
    return json.dumps({"filestored_manifest": 1, "algorithm": "sha256", "entries": [GOOD, *entries]}).encode()


def file_at(path: str, **more: object) -> dict[str, object]:
    return {**GOOD, "path": path, **more}


def link_at(path: str, target: str) -> dict[str, object]:
    return {"type": "link", "path": path, "target": target, "mtime_ns": 0}


@pytest.mark.parametrize(
    "manifest",
    [
        hostile(file_at("/etc/x")),
        hostile(file_at("../x")),
        hostile(file_at("a/../../x")),
        hostile(file_at("a/..")),
        hostile(file_at("./x")),
        hostile(file_at("a//x")),
        hostile(file_at("a/")),
        hostile(file_at("")),
        hostile(file_at("a\0b")),
        hostile(file_at("\ud800")),
        hostile({**file_at("x"), "path_base64": base64.b64encode(b"../x").decode()}),
        hostile({**file_at("x"), "path_base64": "!"}),
        hostile(file_at("good")),
        hostile({**file_at("x"), "path_base64": base64.b64encode(b"good").decode()}),
        hostile(file_at("good/below")),
        hostile(link_at("l", "sub"), file_at("l/x")),
        hostile(link_at("l", "/etc")),
        hostile(link_at("l", "../x")),
        hostile(link_at("l", "")),
        hostile(link_at("l", "a\0")),
        hostile(link_at("a/b/top", "../.."), link_at("m", "a/b/top/../x")),
        hostile(link_at("x", "y/.."), link_at("y", "..")),
        hostile(file_at("x", hash="../../etc/passwd")),
        hostile(file_at("x", size=-1)),
        hostile(file_at("x", size="1")),
        hostile(file_at("x", size=True)),
        hostile(file_at("x", mode="rwx")),
        hostile(file_at("x", mode=420)),
        hostile(file_at("x", mtime_ns=2**70)),
        hostile(file_at("x", type="device")),
        hostile({"path": "x"}),
        b'{"filestored_manifest": 1, "algorithm": "sha256", "entries": [1]}',
        b'{"filestored_manifest": 2, "algorithm": "sha256", "entries": []}',
        b'{"filestored_manifest": 1, "algorithm": "rot13", "entries": []}',
        b'{"filestored_manifest": 1, "entries": {}}',
        b"[]",
        b"",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_hostile_manifest_is_refused_before_anything_is_written(tmp_path: Path, manifest: bytes) -> None:
    # no server is asked
    ended = Shell("http://127.0.0.1:1", tmp_path).run("get", "--manifest", "-", "-o", "back", stdin=manifest)
    assert (ended.status, ended.output) == (1, "")
    require_one_line(ended.said)
    assert "\x1b" not in ended.said
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_through_a_link_that_is_there(shell: Shell) -> None:
    (shell.folder / "d" / "sub").mkdir(parents=True)
    (shell.folder / "d" / "sub" / "f").write_text("x")
    (shell.folder / "d" / "g").write_text("g")
    shell.done("put", "-r", "d", "--manifest", "m.json")
    (shell.folder / "elsewhere").mkdir()
    (shell.folder / "back").mkdir()
    (shell.folder / "back" / "sub").symlink_to(shell.folder / "elsewhere")
    for words in ([], ["--force"]):
        ended = shell.run("get", "--manifest", "m.json", "-o", "back", *words)
        assert ended.status == 7
        require_one_line(ended.said)
    assert list((shell.folder / "elsewhere").iterdir()) == []
    assert [path.name for path in (shell.folder / "back").iterdir()] == ["sub"]


def test_a_manifest_of_another_hash_function_works_too(start_daemon: StartDaemon, tmp_path: Path) -> None:
    for algorithm in ("md5", "sha512", "blake3"):
        daemon = start_daemon("--workers", "1", "--hash", algorithm)
        shell = Shell(daemon.url, tmp_path / algorithm)
        shell.folder.mkdir()
        make_tree(shell.folder / "tree")
        shell.done("put", "-r", "tree", "--manifest", "m.json")
        assert json.loads((shell.folder / "m.json").read_text())["algorithm"] == algorithm
        for _ in range(2):
            shell.done("get", "--manifest", "m.json", "-o", "back")
            assert state_of(shell.folder / "back") == state_of(shell.folder / "tree")


def test_json_has_an_object_for_each_file(shell: Shell) -> None:
    make_tree(shell.folder / "tree")
    said = [json.loads(line) for line in shell.done("put", "-r", "tree", "--json", "--manifest", "m.json").splitlines()]
    files = len(ODD_NAMES) + 5
    assert len(said) == files
    restored = [
        json.loads(line) for line in shell.done("get", "--manifest", "m.json", "-o", "b", "--json").splitlines()
    ]
    assert len(restored) == files + 4 + 4
    assert not any(each["was_there"] for each in restored if each.get("path") == "script")

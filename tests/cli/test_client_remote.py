"""``rm``, ``ls``, ``info``, ``link`` against a server."""

import json
import re
from pathlib import Path

import httpx

from tests.cli.calling import Shell
from tests.cli.test_client_transfers import require_one_line, sha256
from tests.conftest import StartDaemon


def store(shell: Shell, name: str, content: bytes, media_type: str = "text/plain") -> str:
    answer = httpx.post(
        f"{shell.url}/v1/files", params={"name": name}, content=content, headers={"content-type": media_type}
    )
    return str(answer.raise_for_status().json()["hash"])


def test_files_are_listed_in_a_pipe_with_tabs_between(shell: Shell) -> None:
    assert shell.done("ls") == ""
    first = store(shell, "a.txt", b"aaa")
    second = store(shell, "b.txt", b"b")
    rows = [line.split("\t") for line in shell.done("ls").splitlines()]
    assert [(row[0], row[1], row[2], row[4], row[5]) for row in rows] == [
        (second, "1", "text/plain", "", "b.txt"), (first, "3", "text/plain", "", "a.txt"),
    ]  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", rows[0][3])
    assert [line.split("\t")[5] for line in shell.done("ls", "--sort", "name").splitlines()] == ["a.txt", "b.txt"]
    assert [line.split("\t")[5] for line in shell.done("ls", "--sort", "-size", "--limit", "1").splitlines()] == [
        "a.txt"
    ]
    assert [line.split("\t")[5] for line in shell.done("ls", "--name", "*b").splitlines()] == ["b.txt"]
    assert shell.done("ls", "--type", "image/") == ""


def test_more_files_than_a_page_are_listed(shell: Shell) -> None:
    for number in range(30):
        (shell.folder / f"{number:04}").write_text(str(number))
    shell.done("put", *(f"{number:04}" for number in range(30)))
    for start in range(30, 1230, 100):
        names = [f"{number:04}" for number in range(start, start + 100)]
        for name in names:
            (shell.folder / name).write_text(name)
        shell.done("put", *names)
    said = shell.done("ls", "--sort", "name", "--json").splitlines()
    assert [json.loads(line)["name"] for line in said] == [f"{number:04}" for number in range(1230)]


def test_info_shows_what_the_server_knows(shell: Shell) -> None:
    digest = store(shell, "a.txt", b"aaa")
    said = json.loads(shell.done("info", digest, "--json"))
    assert said["hash"] == digest
    assert said.keys() >= {"hash", "algorithm", "size", "name", "type", "owner", "created_at", "expires_at", "url"}
    assert httpx.get(said["url"]).content == b"aaa"
    rows = dict(re.split(" {2,}", line, maxsplit=1) for line in shell.done("info", digest.upper()).splitlines())
    assert (rows["hash"], rows["name"], rows["size"], rows["expires_at"]) == (digest, "a.txt", "3", "-")


def test_files_are_deleted_and_those_that_are_not_there_are_a_line_each(shell: Shell) -> None:
    digests = [store(shell, name, name.encode()) for name in ("a", "b", "c")]
    ended = shell.run("rm", digests[0], "0" * 64, "1" * 64, digests[1])
    assert (ended.status, ended.output) == (3, "")
    assert len(ended.said.splitlines()) == 2
    assert [httpx.get(f"{shell.url}/{digest}").status_code for digest in digests] == [404, 404, 200]
    shell.done("rm", digests[2])


def test_a_link_is_made_by_the_server_that_is_named(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1", "--anonymous", "full", store=tmp_path / "store")
    shell = Shell(daemon.url, tmp_path)
    digest = store(shell, "a.txt", b"linked")
    by_variable = shell.done("link", digest, "--expires-in", "2h").strip()
    by_flag = Shell("", tmp_path).done("link", digest, "--url", daemon.url).strip()
    for url in (by_variable, by_flag):
        assert httpx.get(url).content == b"linked"
    said = json.loads(shell.done("link", digest, "--json"))
    assert httpx.get(said["url"]).content == b"linked"
    assert said["expires_at"].endswith("Z")


def test_a_link_is_made_beside_the_store_where_no_server_is_named(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1", store=tmp_path / "store")
    nowhere = Shell("http://127.0.0.1:1", tmp_path)
    digest = store(Shell(daemon.url, tmp_path), "a.txt", b"linked")
    # a store that is named goes before a variable
    for user, words in ((Shell("", tmp_path), []), (nowhere, ["--store", "store"])):
        url = user.done("link", digest, *words).strip()
        assert httpx.get(url).content == b"linked"
    ended = nowhere.run("link", digest, "--store", "store", "--url", daemon.url)
    assert ended.status == 2
    require_one_line(ended.said)


def test_names_reach_programs_as_they_are_and_break_no_line(shell: Shell) -> None:
    name = "\N{GRINNING FACE} a  b '"
    digest = store(shell, name, b"x")
    assert shell.done("ls").rstrip("\n").split("\t")[5] == name
    assert json.loads(shell.done("ls", "--json"))["name"] == name
    assert digest == sha256(b"x")

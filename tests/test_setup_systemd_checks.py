"""``setup_systemd.sh``: what it refuses, and what it says would not work, before anybody acts on it."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_program
from tests.sandbox import lines_of
from tests.test_setup_systemd import PROGRAM, ROOT, SCRIPT, Ended, recording


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--install=no",), "--install takes no value"),
        (("--yes=no",), "--yes takes no value"),
        (("--default=",), "--default takes no value"),
        (("--prot=1",), "there is no option --prot"),
        (("--host", "--port", "9001"), "--host needs a value, and --port looks like an option"),
        (("--store=--yes",), "--store needs a value, and --yes looks like an option"),
        (("--host", "[::1]"), "--host [::1]: an address of IPv6 is written without brackets here"),
        (("--user", "root"), "--user root: the daemon needs no rights of root's"),
        (("--service-name", "a:b"), "a:b.service: that is no name of a unit"),
        *(
            (("--store", folder), f"--store {os.path.realpath(folder)}: it must be a folder of its own, and that is")
            for folder in ("/etc", "/etc/ssl", "/srv", "/var/lib", "/srv/../usr/share/files", "/home", "/usr/local/bin")
        ),
        (("--store", "s3://bucket/prefix", "--spool", "/var/spool"), "--spool /var/spool: it must be a folder of its"),
        (("--store", "/etc/passwd"), "--store /etc/passwd: it must be a folder of its own"),
    ],
)
def test_what_would_do_harm_is_refused_in_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ended = Ended(tmp_path, "", "--yes", *words)
    assert (ended.status, ended.output) == (2, "")
    assert ended.said.startswith(f"setup_systemd.sh: {said}")
    assert ended.said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_things_in_it_is_no_store(tmp_path: Path) -> None:
    taken, place = tmp_path / "taken", tmp_path / "place"
    place.mkdir()
    (taken / "letters").mkdir(parents=True)
    for words in (("--yes",), ("--yes", "--install")):
        ended = Ended(place, "", *words, "--store", str(taken), path=recording(place, "systemctl", "useradd"))
        assert (ended.status, ended.output) == (2, "")
        assert ended.said.startswith(
            f"setup_systemd.sh: --store {taken}: it is no store, and has {taken}/letters in it"
        )
        assert not (place / "called").exists()
        shutil.rmtree(place / "commands")
    (taken / "letters").rmdir()
    (taken / "file").touch()
    assert "that is no folder" in Ended(place, "", "--yes", "--store", str(taken / "file")).said


@pytest.mark.parametrize("inside", ["", "lost+found", "5f", ".filestored"])
def test_a_folder_that_is_there_is_never_made_anew(tmp_path: Path, inside: str) -> None:
    """Empty, a disk of its own, a store of before, or one of ours: it changes hands, and nothing else."""
    store = tmp_path / "a-store"
    (store / inside).mkdir(parents=True)
    ended = Ended(tmp_path, "", "--yes", "--store", str(store))
    assert (ended.status, ended.said) == (0, "")
    assert "install -d" not in ended.output
    assert f"  chown -R filestored: {store}\n" in ended.output
    missing = Ended(tmp_path, "", "--yes", "--store", str(tmp_path / "missing")).output
    assert (
        f"  test -e {tmp_path}/missing || install -d -m 0700 -o filestored -g filestored {tmp_path}/missing\n"
        in missing
    )


def test_no_unit_of_the_system_is_hidden_by_one_of_its_name(tmp_path: Path) -> None:
    require_program("systemd-analyze")
    place = next(each for each in map(Path, ("/usr/lib/systemd/system", "/lib/systemd/system")) if each.is_dir())
    theirs = next(each for each in sorted(place.glob("systemd-*.service")) if "@" not in each.name)
    ended = Ended(tmp_path, "", "--yes", "--service-name", theirs.stem)
    assert ended.status == 1
    assert re.fullmatch(
        rf"setup_systemd\.sh: \S*/{re.escape(theirs.name)} is there and was not written by this program: .*\n",
        ended.said,
    )
    assert not list(tmp_path.iterdir())


def test_what_is_to_be_typed_can_be_typed_and_typed_again(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "", "--yes", "--unit-dir", "a b;c")
    assert f"  install -m 0644 {tmp_path}/filestored.service a\\ b\\;c/\n" in ended.output
    assert "  id -u filestored >/dev/null 2>&1 || useradd --system " in ended.output
    printed = [line for line in ended.output.splitlines() if line.startswith("  ")]
    assert subprocess.run(["sh", "-n"], input="\n".join(printed), text=True, timeout=60).returncode == 0


def test_each_unit_has_its_own_further_settings(tmp_path: Path) -> None:
    assert Ended(tmp_path, "", "--yes").unit()["EnvironmentFile"] == ["-/etc/filestored/environment"]
    ended = Ended(tmp_path, "", "--yes", "--service-name", "uploads", "--store", "s3://bucket/prefix")
    assert ended.unit("uploads.service")["EnvironmentFile"] == ["-/etc/filestored/uploads.environment"]
    assert "install -D -m 0600 /dev/null /etc/filestored/uploads.environment\n" in ended.output


def test_a_folder_that_no_unit_can_name_is_not_named(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    (checkout / "docs").mkdir(parents=True)
    (checkout / "docs" / "operations.md").touch()
    shutil.copy(SCRIPT, checkout)
    words = ["bash", str(checkout / SCRIPT.name), "--yes", "--program", str(PROGRAM)]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert "Documentation" not in lines_of(tmp_path / "filestored.service")
    assert Ended(tmp_path, "", "--yes").unit()["Documentation"] == [f"file:{ROOT}/docs/operations.md"]


@pytest.fixture
def environment() -> Iterator[Path]:
    """Give an environment with the program, where everybody may go."""
    folder = Path(tempfile.mkdtemp(prefix="environment-", dir="/tmp"))
    try:
        (folder / "bin").mkdir()
        for name in ("filestored", "python"):
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {PROGRAM.parent / name} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


def test_it_notes_where_the_user_could_not_run_the_program(tmp_path: Path, environment: Path) -> None:
    program = environment / "bin" / "filestored"
    link = tmp_path / "filestored"
    link.symlink_to(program)
    assert "note: " not in Ended(tmp_path, "", "--yes", "--program", str(program)).output
    environment.chmod(0o700)
    ended = Ended(tmp_path, "", "--yes", "--program", str(program))
    assert (ended.status, ended.said) == (0, "")
    assert (
        f"note: {environment} is closed to filestored, who cannot run {program}: the service would not" in ended.output
    )
    # the folder above is not what the unit shows to the service
    environment.chmod(0o755)
    inner = environment / "inner"
    shutil.copytree(environment / "bin", inner / "bin")
    inner.chmod(0o755)
    environment.chmod(0o700)
    ended = Ended(tmp_path, "", "--yes", "--program", str(inner / "bin" / "filestored"))
    assert f"note: {environment} is closed to filestored, who cannot run {inner}/bin/filestored: the service does" in (
        ended.output
    )
    assert ended.unit()["BindReadOnlyPaths"] == [str(inner)]
    ended = Ended(tmp_path, "", "--yes", "--program", str(link))
    assert f"who cannot run {link}: " in ended.output
    assert str(environment) in ended.unit()["BindReadOnlyPaths"]


@pytest.fixture
def closed_key() -> Iterator[Path]:
    """Give a key that its owner alone may read, where a service would see it."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", suffix=".pem") as key:
        yield Path(key.name)


def test_a_key_that_the_user_cannot_read_is_noted_and_not_installed(tmp_path: Path, closed_key: Path) -> None:
    units = tmp_path / "units"
    units.mkdir()
    path = recording(tmp_path, "systemctl")
    (tmp_path / "commands" / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "commands" / "sudo").chmod(0o755)
    # whoever runs this owns the key, and is not that user
    words = ("--yes", "--user", "nobody", "--tls-cert", "/etc/passwd", "--tls-key", str(closed_key))
    ended = Ended(tmp_path, "", *words, path=path)
    assert (ended.status, ended.said) == (0, "")
    assert f"note: {closed_key} is closed to nobody, who must read {closed_key}: " in ended.output
    assert "/etc/passwd is closed" not in ended.output
    ended = Ended(tmp_path, "", *words, "--install", "--unit-dir", str(units), path=path)
    assert ended.status == 1
    assert ended.said.startswith(f"setup_systemd.sh: nobody cannot read {closed_key}: 'chown nobody {closed_key}', or ")
    assert ended.said.count("\n") == 1
    assert not list(units.iterdir())
    closed_key.chmod(0o644)
    assert "must read" not in Ended(tmp_path, "", *words, path=path).output


def test_a_unit_is_written_by_whoever_cannot_read_the_key(tmp_path: Path, closed_key: Path) -> None:
    """As an ordinary user: whether the service can is another question."""
    closed_key.chmod(0)
    dropped = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    keys = ["--tls-cert", "/etc/passwd", "--tls-key", str(closed_key)]
    words = [*dropped, "bash", str(SCRIPT), "--yes", "--program", str(PROGRAM), "--port", "443", *keys]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    (started,) = lines_of(tmp_path / "filestored.service")["ExecStart"]
    assert started.endswith(f" --port 443 --tls-cert /etc/passwd --tls-key {closed_key}")
    # what can be judged still is
    words[words.index("443")] = "99999"
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.partition(":")[0]) == (2, "filestored")


@pytest.mark.parametrize("option", ["--store", "--spool"])
def test_what_a_link_leads_to_puts_no_line_into_the_unit(tmp_path: Path, option: str) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "w\nExecStartPre=+/bin/false\n#"
    place.mkdir()
    elsewhere.mkdir(parents=True)
    (tmp_path / "link").symlink_to(elsewhere)
    words = ("--store", "s3://bucket/prefix") if option == "--spool" else ()
    ended = Ended(place, "", "--yes", *words, option, f"{tmp_path}/link/files")
    assert (ended.status, ended.output) == (2, "")
    assert not list(place.iterdir())


def test_it_writes_over_nothing_that_a_link_leads_to(tmp_path: Path) -> None:
    place, victim = tmp_path / "place", tmp_path / "victim"
    place.mkdir()
    victim.write_text("mine")
    (place / "filestored.service.new").symlink_to(victim)
    ended = Ended(place, "", "--yes", "--store", str(tmp_path / "store"))
    assert ended.status == 0, ended.said
    assert victim.read_text() == "mine"
    written = place / "filestored.service"
    assert written.is_file()
    assert not written.is_symlink()

"""``filestored doctor`` as a whole: what it says of a sound store, whose settings it examines, and what it bears."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from filestored.cli.doctor import find_situation
from filestored.doctor import checks
from filestored.doctor.findings import Finding, Situation, State
from filestored.settings import load
from tests.conftest import StartDaemon
from tests.doctor.examining import ROOT, doctor


def test_where_all_is_well_it_says_so(start_daemon: StartDaemon, folder: Path) -> None:
    daemon = start_daemon("--workers", "1", store=folder / "store")
    told = doctor(daemon.store)
    assert (told.status, told.faults()) == (0, set())
    assert {each["check"] for each in told.findings} == checks.CHECKS.keys()
    assert told.of("folder", "good")["found"] == f"{daemon.store} is a store, its files named by sha256"
    assert told.of("daemon", "good")["found"] == f"process {daemon.pid} accepts requests at {daemon.url}"
    assert "0 files" in told.of("catalogue", "good")["found"]
    assert daemon.stop() == 0


def test_it_leaves_no_trace(folder: Path) -> None:
    told = doctor(folder / "new" / "store")
    assert (told.status, told.faults()) == (0, set())
    assert "the first start makes it" in told.of("folder", "good")["found"]
    assert list(folder.iterdir()) == []
    (folder / "empty").mkdir()
    assert doctor(folder / "empty").status == 0
    assert list((folder / "empty").iterdir()) == []


def test_people_read_sentences(folder: Path) -> None:
    (folder / "thesis.txt").write_text("mine")
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", "doctor", "--store", str(folder)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert f"FAULT    folder       {folder} is neither empty nor a store" in ended.stdout
    assert "→ name another folder with --store" in ended.stdout


def test_variables_that_are_no_settings(folder: Path) -> None:
    told = doctor(folder, env={"FILESTORED_PROT": "1"})
    assert "did you mean FILESTORED_PORT?" in told.of("settings", "warning")["found"]
    assert told.status == 0


def test_settings_that_are_wrong_are_findings_among_others(folder: Path) -> None:
    file = folder / "filestored.toml"
    file.write_text("port = ")
    broken = doctor(folder / "store", "--port", "0", "--config", str(file))
    assert "not valid TOML" in broken.of("settings", "fault")["found"]
    assert {each["check"] for each in broken.findings} == checks.CHECKS.keys()
    file.write_text('workers = "many"\nport = 0\n')
    wrong = doctor(folder / "store", "--config", str(file))
    assert "workers = many" in wrong.of("settings", "fault")["found"]
    assert wrong.faults() == {"settings"}
    file.write_text("prot = 1\n")
    none = doctor(folder / "store", "--port", "0", env={"FILESTORED_CONFIG": str(file)})
    assert "did you mean port?" in none.of("settings", "fault")["found"]


def test_what_is_wrong_on_the_command_line_is_called_wrongly(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", "doctor", "--store", str(folder), "--port", "many"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--port many" in ended.stderr


def test_the_settings_of_the_last_start_are_what_is_examined(start_daemon: StartDaemon, folder: Path) -> None:
    store = folder / "store"
    daemon = start_daemon("--workers", "1", "--trusted-proxy", "0.0.0.0/0", store=store)
    assert daemon.stop() == 0
    assert doctor(store).faults() == {"proxies"}
    assert doctor(store, "--trusted-proxy", "127.0.0.1", "--port", "0").faults() == set()


def test_a_check_that_breaks_down_is_told_and_keeps_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(situation: Situation) -> Iterator[Finding]:
        raise RuntimeError("out of order")

    monkeypatch.setitem(checks.CHECKS, "clock", broken)
    told = list(checks.examine(Situation(load({"store": str(folder), "port": "0"}, {}), None)))
    (clock,) = (each.finding for each in told if each.name == "clock")
    assert clock.state == State.FAULT
    assert "out of order" in clock.found
    assert {each.name for each in told} == checks.CHECKS.keys()


def test_a_check_that_does_not_end_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def stuck(situation: Situation) -> Iterator[Finding]:
        yield Finding(State.GOOD, "so far")
        never.wait()

    monkeypatch.setitem(checks.CHECKS, "clock", stuck)
    monkeypatch.setattr(checks, "LONGEST_SECONDS", 5.0)
    told = list(checks.examine(Situation(load({"store": str(folder), "port": "0"}, {}), None)))
    never.set()
    clock = [each.finding for each in told if each.name == "clock"]
    assert [each.state for each in clock] == [State.GOOD, State.FAULT]
    assert "longer than 5 seconds" in clock[1].found
    assert {each.name for each in told} == checks.CHECKS.keys()


def test_the_documentation_names_every_check() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    section = text.partition("## `doctor`")[2].partition("\n## ")[0]
    for name in checks.CHECKS:
        assert f"| `{name}` |" in section


def test_what_is_examined_is_what_a_restart_would_have(tmp_path: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", env={"FILESTORED_MIN_FREE_SPACE": "0"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILESTORED_MIN_FREE_SPACE", "1000TiB")
        situation = find_situation({"store": str(daemon.store)})
        given = find_situation({"store": str(daemon.store), "min_free_space": "1000TiB"})
    assert situation.settings.min_free_space == 0
    assert given.settings.min_free_space == 1000 << 40

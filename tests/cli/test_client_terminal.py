"""The client's commands on a terminal: progress, names that would act on it, completion in a shell."""

import itertools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping
from fcntl import ioctl
from pathlib import Path
from select import select

import httpx
import pytest
from rich.live import Live

from filestored.cli import progress
from tests.cli.calling import Shell, command, environment
from tests.cli.test_client_transfers import require_one_line, sha256
from tests.conftest import StartDaemon, require_program
from tests.processes import wait_until
from tests.proxy import proxy_before

ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command on a terminal of its own; what it draws is kept."""

    def __init__(self, words: list[str], folder: Path, env: Mapping[str, str], columns: int = 100) -> None:
        self.drawn = b""
        self._pid, self._handle = pty.fork()
        if self._pid == 0:
            try:
                os.chdir(folder)
                os.execvpe(words[0], words, {**env, "TERM": "xterm-256color"})
            finally:
                os._exit(70)
        self.resize(columns)

    def resize(self, columns: int) -> None:
        ioctl(self._handle, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def write(self, text: bytes) -> None:
        os.write(self._handle, text)

    def read_until(self, holds: Callable[[bytes], bool], seconds: float = 60) -> None:
        """Read what is drawn until something holds for all of it, or to the end."""
        deadline = time.monotonic() + seconds
        while not holds(self.drawn):
            assert time.monotonic() < deadline, self.drawn[-2000:]
            if select([self._handle], [], [], 0.1)[0] and not self._read():
                return

    def end(self) -> tuple[int, bytes]:
        """Read to the end; return exit status and all that was drawn."""
        self.read_until(lambda _: False)
        os.close(self._handle)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]), self.drawn

    def signal(self, number: int) -> None:
        os.kill(self._pid, number)

    def _read(self) -> bool:
        try:
            piece = os.read(self._handle, 65536)
        except OSError:
            return False
        self.drawn += piece
        return bool(piece)


def on_terminal(shell: Shell, *words: str, url: str | None = None, columns: int = 100) -> Terminal:
    return Terminal(command(*words), shell.folder, environment(url or shell.url, shell.folder), columns)


def frames_of(drawn: bytes) -> list[str]:
    """Return what stood on the terminal's lines, one drawing after the other."""
    return [ESCAPE.sub(b"", frame).decode(errors="replace") for frame in drawn.split(b"\x1b[2K")]


def make_files(folder: Path) -> None:
    folder.mkdir()
    for number in range(100):
        (folder / f"{number}").write_bytes(os.urandom(1000))
    (folder / "large").write_bytes(os.urandom(30_000_000))


def is_wide(frame: str) -> bool:
    """Tell whether a drawing has a line for everything and one for the large file, with all there is to say."""
    return bool(
        re.search(r"100/101 files .*/28\.7 MiB", frame)
        and re.search(r"tree/large .*\d+\.\d/28\.6 MiB .*iB/s +\d\d:\d\d", frame)
    )


def is_narrow(frame: str) -> bool:
    """Tell whether a drawing was made for few columns: there is no room for sizes."""
    return "100/101 files" in frame and "tree/large" in frame and "MiB" not in frame


def test_progress_shows_files_and_bytes_in_all_and_each_large_file(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    shell = Shell(daemon.url, tmp_path / "home")
    shell.folder.mkdir()
    make_files(shell.folder / "tree")
    with proxy_before(daemon.address) as proxy:
        proxy.limit(10_000_000)
        terminal = on_terminal(shell, "put", "-r", "tree", "--manifest", "m.json", url=proxy.url)
        terminal.read_until(lambda drawn: any(map(is_wide, frames_of(drawn))))
        # a terminal that becomes narrow in the middle
        proxy.freeze()
        before = len(terminal.drawn)
        terminal.resize(40)
        terminal.read_until(lambda drawn: any(map(is_narrow, frames_of(drawn[before:]))))
        proxy.thaw()
        status, drawn = terminal.end()
    assert status == 0
    assert is_wide("".join(frames_of(drawn[:before])))
    # from the first drawing on that knows of the new width
    narrow = list(itertools.dropwhile(lambda frame: not is_narrow(frame), frames_of(drawn[before:])))
    assert max(len(line) for frame in narrow for line in re.split(r"[\r\n]+", frame)) <= 40
    # it takes its lines away, and shows the cursor again
    assert drawn.rstrip().endswith((b"\x1b[2K", b"\x1b[?25h"))
    assert b"\x1b[?25h" in drawn
    assert len(json.loads((shell.folder / "m.json").read_text())["entries"]) == 101


def test_progress_of_a_download(start_daemon: StartDaemon, tmp_path: Path) -> None:
    shell = Shell(start_daemon("--workers", "1").url, tmp_path)
    digest = httpx.post(shell.url, content=os.urandom(40_000_000), params={"name": "large"}).text
    status, drawn = on_terminal(shell, "get", digest, "-o", "copy").end()
    assert status == 0
    text = "".join(frames_of(drawn))
    assert "1/1 files" in text
    assert "copy" in text


@pytest.mark.parametrize("words", [["--quiet"], ["--no-progress"]])
def test_progress_can_be_switched_off(shell: Shell, words: list[str]) -> None:
    (shell.folder / "f").write_bytes(os.urandom(20_000_000))
    status, drawn = on_terminal(shell, "put", "f", *words).end()
    assert status == 0
    assert drawn.decode().strip() == sha256((shell.folder / "f").read_bytes())


def test_nothing_but_results_is_printed_where_nobody_looks(shell: Shell) -> None:
    make_files(shell.folder / "tree")
    ended = shell.run("put", *(f"tree/{number}" for number in range(100)), "tree/large")
    assert (ended.status, ended.said) == (0, "")
    assert len(ended.output.splitlines()) == 101
    # the results go elsewhere: json on standard output, a terminal for the rest
    master, slave = pty.openpty()
    with (shell.folder / "out").open("wb") as out:
        subprocess.run(
            command("put", "tree/large", "--json"), stdout=out, stderr=slave, check=True, timeout=60, cwd=shell.folder,
            env=environment(shell.url, shell.folder),
        )  # fmt: skip
    os.close(slave)
    drawn = b""
    if select([master], [], [], 0.2)[0]:
        try:
            drawn = os.read(master, 1000)
        except OSError:
            drawn = b""
    os.close(master)
    assert drawn == b""


def test_results_and_failures_stand_above_what_is_drawn(shell: Shell) -> None:
    make_files(shell.folder / "tree")
    status, drawn = on_terminal(shell, "put", "none", "tree/large", "tree/1").end()
    assert status == 7
    text = "".join(frames_of(drawn))
    assert "filestored: none: No such file or directory" in text
    assert f"{sha256((shell.folder / 'tree' / '1').read_bytes())}  tree/1" in text


def test_ctrl_c_on_a_terminal_leaves_it_in_order(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    shell = Shell(daemon.url, tmp_path / "home")
    shell.folder.mkdir()
    make_files(shell.folder / "tree")
    with proxy_before(daemon.address) as proxy:
        proxy.limit(5_000_000)
        terminal = on_terminal(shell, "put", "tree/large", url=proxy.url)
        terminal.read_until(lambda drawn: b"MiB" in drawn)
        terminal.write(b"\x03")
        status, drawn = terminal.end()
    assert status == 130
    assert b"filestored: interrupted; the same command goes on from here" in drawn
    assert b"Traceback" not in drawn
    assert drawn.rindex(b"\x1b[?25h") > drawn.rindex(b"\x1b[?25l")


def test_an_interrupt_while_it_begins_to_draw_shows_the_cursor_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(live: Live, *, refresh: bool) -> None:
        start(live, refresh=refresh)
        raise KeyboardInterrupt

    start = Live.start
    monkeypatch.setattr(Live, "start", interrupted)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "is_terminal", lambda stream: True)
    with pytest.raises(KeyboardInterrupt), progress.reporting(is_quiet=False, as_json=False):
        pass
    drawn = capfd.readouterr().err
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")
    assert wait_until(lambda: not [each for each in threading.enumerate() if type(each).__name__ == "_RefreshThread"])


def test_names_never_act_on_a_terminal(shell: Shell) -> None:
    name = "\x1b[31m\x07red\u202egnp.exe"
    (shell.folder / name).write_bytes(b"x")
    (shell.folder / "d").mkdir()
    (shell.folder / "d" / name).symlink_to("/etc/passwd\x1b[31m")
    manifest = json.dumps({
        "filestored_manifest": 1, "algorithm": "sha256",
        "entries": [{"type": "file", "path": f"../{name}", "hash": "0" * 64, "size": 1, "mode": "0644", "mtime_ns": 0}],
    })  # fmt: skip
    (shell.folder / "m.json").write_text(manifest)
    for words in (
        ["put", name, name], ["put", f"no{name}"], ["put", "-r", "d"], ["get", "--manifest", "m.json"],
        ["get", name], ["rm", name], ["info", name], ["ls", "--server", name], ["put", "x", "--url", f"http://{name}"],
        ["ls", "--name", name], ["server", "add", name, "http://x"],
    ):  # fmt: skip
        _, drawn = on_terminal(shell, *words).end()
        plain = ESCAPE.sub(lambda found: b"" if found[0] != b"\x1b[31m" or b"--" in found[0] else found[0], drawn)
        assert b"\x07" not in drawn, words
        assert b"\x1b[31m\x07" not in plain, words
        assert "\u202e".encode() not in drawn, words
    # the server takes out what would act already; what it lists is a table
    status, drawn = on_terminal(shell, "ls").end()
    assert status == 0
    assert re.match(rb"HASH +SIZE +TYPE +CREATED +EXPIRES +NAME\r\n", drawn)


def test_a_reader_that_has_enough_ends_a_command_quietly(shell: Shell) -> None:
    for number in range(2000):
        (shell.folder / f"{number}").write_bytes(b"%d" % number)
    shell.done("put", "-r", ".", "--manifest", "m.json")
    for words in ("ls", "ls --json", "put -r .", "put --json -r . --manifest m", "get -o - " + sha256(b"1")):
        ended = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m filestored {words} | head -c 10"],
            capture_output=True, timeout=60, cwd=shell.folder, env=environment(shell.url, shell.folder),
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, b""), words
        assert ended.stdout


@pytest.mark.parametrize(
    ("words", "status", "printed"),
    [
        ("put f 2>&-", 0, True),
        ("put f <&-", 0, True),
        ("put f >&-", 0, False),
        ("ls >&-", 0, False),
        ("put - <&-", 7, False),
        ("get --manifest - <&-", 7, False),
        ("get -o - HASH >&-", 7, False),
        ("get -o - HASH >/dev/full", 7, False),
        ("put f >/dev/full", 7, False),
        ("put -r . >/dev/full", 7, False),
        ("put f 2>/dev/full", 0, True),
    ],
)
def test_standard_streams_that_are_closed_or_full_are_no_traceback(
    shell: Shell, words: str, status: int, printed: bool
) -> None:
    (shell.folder / "f").write_bytes(b"x")
    digest = shell.done("put", "f").strip()
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m filestored {words.replace('HASH', digest)}"],
        capture_output=True, timeout=60, cwd=shell.folder, env=environment(shell.url, shell.folder),
    )  # fmt: skip
    assert (ended.returncode, ended.stdout.decode().strip()) == (status, digest if printed else "")
    if status:
        require_one_line(ended.stderr.decode())


def completed(shell: Shell, typed: str) -> list[str]:
    """Return what bash offers for what is typed, by the script that the program prints."""
    program = shell.folder / "bin" / "filestored"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m filestored "$@"\n')
    program.chmod(0o755)
    words = typed.split(" ")
    script = (
        'eval "$(filestored completion bash)"\n'
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}) COMP_CWORD={len(words) - 1}\n"
        "complete -p filestored >&2\n"
        f'_filestored_completion filestored {words[-1]!r} {words[-2]!r}\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
    )
    env = environment("", shell.folder) | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=shell.folder,
        env=env,
        check=True,
    )
    assert "-F _filestored_completion filestored" in ended.stderr
    return ended.stdout.split()


def test_bash_completes_commands_options_and_names_of_servers(tmp_path: Path) -> None:
    require_program("bash")
    shell = Shell("", tmp_path)
    shell.done("server", "add", "home", "https://files.example")
    shell.done("server", "add", "work", "https://work.example")
    assert completed(shell, "filestored pu") == ["put"]
    assert {"put", "get", "ls", "run", "completion"} <= set(completed(shell, "filestored "))
    assert completed(shell, "filestored put --man") == ["--manifest"]
    assert completed(shell, "filestored put --server ") == ["home", "work"]
    assert completed(shell, "filestored ls --server w") == ["work"]
    assert completed(shell, "filestored server re") == ["remove"]
    assert completed(shell, "filestored server remove ho") == ["home"]
    assert completed(shell, "filestored completion f") == ["fish"]


def test_bash_completes_paths_when_typed(tmp_path: Path) -> None:
    require_program("bash")
    shell = Shell("", tmp_path)
    completed(shell, "filestored pu")
    (tmp_path / "unmistakable name").touch()
    env = environment("", tmp_path) | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PS1": "ready> "}
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], tmp_path, env)
    terminal.write(b'eval "$(filestored completion bash)"; echo loa""ded\n')
    terminal.read_until(lambda drawn: b"loaded" in drawn)
    terminal.write(b"filestored put unmis\t")
    terminal.read_until(lambda drawn: b"unmistakable\\ name" in drawn)
    terminal.write(b"\x15exit\n")
    assert b"unmistakable\\ name" in terminal.end()[1]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_it_takes(tmp_path: Path, name: str) -> None:
    script = Shell("", tmp_path).done("completion", name)
    assert "_FILESTORED_COMPLETE" in script
    (tmp_path / "script").write_text(script)
    subprocess.run([require_program(name), "-n", "script"], cwd=tmp_path, check=True, timeout=60)


def test_completing_a_command_imports_no_other(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom filestored.cli.commands import main\nmain([])\n"
        "print(*(name for name in ('pydantic', 'httpx', 'rich', 'sqlalchemy', 'asyncio') if name in sys.modules))"
    )
    for words, index in (("filestored p", "1"), ("filestored put --", "2"), ("filestored ls --server ", "3")):
        env = environment("", tmp_path) | {
            "_FILESTORED_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": index
        }  # fmt: skip
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, timeout=60
        )
        assert ended.stdout.splitlines()[-1] == "", words


def test_a_second_ctrl_c_ends_at_once(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    with proxy_before(daemon.address) as proxy:
        proxy.freeze()
        shell = Shell(proxy.url, tmp_path)
        waiting = shell.begin("put", "-")
        assert wait_until(lambda: proxy.connections > 0)
        waiting.send_signal(signal.SIGINT)
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=20)
        # the interpreter ends by the signal itself where the first one has made it leave already
        assert waiting.returncode in (130, -signal.SIGINT), said
        assert b"Traceback" not in said
        proxy.thaw()

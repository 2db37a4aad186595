"""Log lines: their form, and that none is lost or torn."""

import json
import logging
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from filestored.errors import StartError
from filestored.logs import AccessEntry, AccessLog, LogFile, configure, granian_logging

MOMENT = 1795464901.123456
TIME = "2026-11-23T20:15:01.123Z"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ +\S.*")


class _Kept:
    """An output in memory."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, lines: bytes) -> None:
        self.pieces.append(lines)

    @property
    def lines(self) -> list[str]:
        return b"".join(self.pieces).decode().splitlines()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers, logging.root.level = handlers, level
    logging.captureWarnings(False)
    logger.remove()
    logger.add(sys.stderr)


def _entry(number: int = 15, path: str = "/", client: str = "127.0.0.1", digest: str = "abc") -> AccessEntry:
    return (MOMENT, number, client, "POST", path, digest, 200, 64, 0.00184)


def _logged(fmt: str, *entries: AccessEntry) -> list[str]:
    output = _Kept()
    log = AccessLog(output, fmt, "info")
    for entry in entries:
        log.add(entry)
    log.close()
    return output.lines


def test_a_request_is_one_line_of_text() -> None:
    (line,) = _logged("text", _entry())
    assert line == (
        f"{TIME} INFO  request id={os.getpid():x}-00000f client=127.0.0.1 POST / hash=abc status=200 bytes=64 ms=1.84"
    )


def test_a_request_is_one_json_object_with_the_same_keys() -> None:
    (line,) = _logged("json", _entry())
    assert json.loads(line) == {
        "time": TIME, "level": "INFO", "message": "request", "id": f"{os.getpid():x}-00000f", "client": "127.0.0.1",
        "method": "POST", "path": "/", "hash": "abc", "status": 200, "bytes": 64, "ms": 1.84,
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/a\nb", "/a\r\nb", "/a\u2028b", "/a\x1b[2Jb", "/\udcff", "/x status=200", "/\x00", '/"']
)
def test_a_path_cannot_forge_a_line_or_a_field(path: str) -> None:
    (line,) = _logged("text", _entry(path=path))
    assert line.isprintable()
    assert line.split(" hash=")[0].count(" ") == _logged("text", _entry())[0].split(" hash=")[0].count(" ")
    (line,) = _logged("json", _entry(path=path))
    assert json.loads(line)["path"] == path
    assert line.isprintable()


def test_what_a_request_has_not_is_a_dash() -> None:
    (line,) = _logged("text", _entry(client="", digest=""))
    assert " client=- " in line
    assert " hash=- " in line


def test_lines_are_written_within_moments_and_many_at_once() -> None:
    output = _Kept()
    log = AccessLog(output, "text", "info")
    for number in range(1000):
        log.add(_entry(number))
    deadline = time.monotonic() + 10
    while len(output.lines) < 1000 and time.monotonic() < deadline:
        time.sleep(0.01)
    log.close()
    assert len(output.lines) == 1000
    assert len(output.pieces) < 5


def test_lines_that_come_too_fast_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filestored.logs.MAX_WAITING_LINES", 10)
    monkeypatch.setattr("filestored.logs._GATHER_SECONDS", 3600)
    warnings: list[str] = []
    logger.remove()
    logger.add(warnings.append, format="{message}", level="WARNING")
    assert len(_logged("text", *(_entry(number) for number in range(25)))) == 10
    (warning,) = warnings
    assert warning.startswith("15 lines")


@pytest.mark.parametrize(("level", "is_read"), [("trace", True), ("info", True), ("success", False), ("error", False)])
def test_requests_are_logged_up_to_level_info(level: str, is_read: bool) -> None:
    log = AccessLog(_Kept(), "text", level)
    assert log.enabled is is_read
    log.close()


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_loguru_and_standard_logging_come_out_in_one_form(tmp_path: Path, fmt: str) -> None:
    file = tmp_path / "x.log"
    configure("info", fmt, file)
    logger.info("from {}", "loguru")
    logger.debug("not this")
    logging.getLogger("some.library").warning("from %s", "logging")
    lines = file.read_text().splitlines()
    if fmt == "json":
        assert [json.loads(line)["message"] for line in lines] == ["from loguru", "from logging"]
        assert [json.loads(line)["level"] for line in lines] == ["INFO", "WARNING"]
    else:
        assert all(LINE.fullmatch(line) for line in lines)
        assert [line.split(" ", 1)[1] for line in lines] == ["INFO  from loguru", "WARNING from logging"]


def test_granians_chatter_is_debug_and_its_complaints_are_not(tmp_path: Path) -> None:
    from granian.log import LogLevels, configure_logging

    file = tmp_path / "x.log"
    configure("debug", "text", file)
    configure_logging(LogLevels.info, granian_logging())
    granian = logging.getLogger("_granian")
    before = list(granian.handlers)
    granian.info("chatter")
    granian.error("complaint")
    granian.handlers = []
    assert before
    assert [line.split(" ", 1)[1] for line in file.read_text().splitlines()] == ["DEBUG chatter", "ERROR complaint"]


def test_addresses_that_libraries_ask_at_are_in_no_log(tmp_path: Path) -> None:
    configure("trace", "text", tmp_path / "log")
    for name in ("httpx", "httpcore", "httpcore.http11"):
        logging.getLogger(name).info("DELETE http://host/key?X-Amz-Signature=secret")
        logging.getLogger(name).debug("DELETE http://host/key?X-Amz-Signature=secret")
        logging.getLogger(name).warning("something is wrong")
    text = (tmp_path / "log").read_text()
    assert "secret" not in text
    assert text.count("something is wrong") == 3


def test_an_error_is_told_with_its_trace_and_quotes_no_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "x.log"
    configure("info", "text", file)
    try:
        raise ValueError("first\n2026-11-23T20:15:01.123Z INFO  forged")
    except ValueError as error:
        logger.opt(exception=error).error("broken\n{}", "2026-11-23T20:15:01.123Z INFO  forged")
    lines = file.read_text().splitlines()
    assert len([line for line in lines if LINE.fullmatch(line)]) == 1
    assert any("ValueError: first" in line for line in lines)


def test_a_log_file_that_cannot_be_written_is_a_start_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be written"):
        configure("info", "text", tmp_path / "missing" / "x.log")


def test_a_log_file_is_renamed_when_it_is_full_and_so_many_are_kept(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", max_bytes=100, kept=2)
    for number in range(30):
        log.write(b"%050d\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2", "x.log.lock"]
    text = "".join((tmp_path / name).read_text() for name in ("x.log.2", "x.log.1", "x.log"))
    assert [int(line) for line in text.splitlines()] == list(range(30 - len(text.splitlines()), 30))


def test_a_log_file_moved_away_is_begun_anew(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log")
    log.write(b"one\n")
    (tmp_path / "x.log").rename(tmp_path / "moved")
    log.write(b"two\n")
    (tmp_path / "x.log").unlink()
    log.write(b"three\n")
    log.close()
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert (tmp_path / "x.log").read_bytes() == b"three\n"


def _write_lines(path: Path, writer: int, count: int) -> None:
    log = LogFile(path, max_bytes=20_000, kept=1000)
    for number in range(0, count, 5):
        log.write(b"".join(b"%d:%d:%s\n" % (writer, line, b"x" * 60) for line in range(number, number + 5)))


def test_no_line_is_lost_or_torn_when_four_processes_write_through_rotations(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "x.log"
    writers = [context.Process(target=_write_lines, args=(path, writer, 5000)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    files = [file for file in tmp_path.iterdir() if file.suffix != ".lock"]
    assert len(files) > 20
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert all(re.fullmatch(r"\d:\d+:x{60}", line) for line in lines)
    assert sorted(line.rpartition(":")[0] for line in lines) == sorted(
        f"{w}:{n}" for w in range(4) for n in range(5000)
    )


def _write_to_pipe(descriptor: int, writer: int) -> None:
    from filestored.logs import StandardError

    os.dup2(descriptor, 2)
    output = StandardError()
    for _ in range(20):
        output.write(b"".join(b"%d:%s\n" % (writer, b"x" * 100) for _ in range(100)))


def test_lines_of_several_processes_are_not_torn_in_a_pipe() -> None:
    reader, descriptor = os.pipe()
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_to_pipe, args=(descriptor, writer)) for writer in range(3)]
    for process in writers:
        process.start()
    os.close(descriptor)
    with open(reader, "rb") as pipe:
        lines = pipe.read().splitlines()
    for process in writers:
        process.join(60)
    assert len(lines) == 3 * 20 * 100
    assert all(re.fullmatch(rb"\d:x{100}", line) for line in lines)

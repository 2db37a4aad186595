"""Results on standard output: as they are in a pipe, and on a terminal so that they cannot act on it."""

import os
import sys
from typing import BinaryIO, TextIO

from filestored.client.errors import LocalFault, shown


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether somebody looks at a stream; None is one that whoever started the program has closed."""
    return stream is not None and stream.isatty()


def write_line(line: str) -> None:
    """Write a line to standard output; a terminal gets no character that it would obey.

    Bytes of file names that are no text go out as they are. Raises BrokenPipeError where nobody reads.
    """
    if sys.stdout is None:
        # closed by whoever started the program
        return
    if is_terminal(sys.stdout):
        sys.stdout.write("\t".join(shown(part) for part in line.split("\t")) + "\n")
        return
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")


def checksum_line(digest: str, name: str) -> str:
    """Return a line as sha256sum writes it, which ``sha256sum --check`` reads: odd names are marked and escaped."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}"


def readable(size: int) -> str:
    """Return a size with three digits or so: ``1.4 MiB``."""
    number, unit = float(size), 0
    while number >= 1000 and unit < 4:
        number, unit = number / 1024, unit + 1
    return str(size) if not unit else f"{number:.{1 if number < 100 else 0}f} {'KMGT'[unit - 1]}iB"


def standard_input() -> BinaryIO:
    """Return standard input, of bytes. Raises LocalFault where whoever started the program has closed it."""
    return _opened(sys.stdin, "standard input")


def standard_output() -> BinaryIO:
    """Return standard output, for bytes. Raises LocalFault where whoever started the program has closed it."""
    return _opened(sys.stdout, "standard output")


def _opened(stream: TextIO | None, name: str) -> BinaryIO:
    if stream is None:
        raise LocalFault(name, "it is closed")
    return stream.buffer

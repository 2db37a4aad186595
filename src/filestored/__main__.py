"""``python -m filestored``, and the installed command ``filestored``."""

import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line and leave with its exit status."""
    _open_closed_descriptors()
    # until a log is set up nothing is to be told but what a command itself says
    os.environ["LOGURU_AUTOINIT"] = "0"
    try:
        from filestored.cli.commands import main as run_command
    except KeyboardInterrupt:
        sys.exit(130)
    status = run_command()
    if "obstore" in sys.modules:
        # now and then it aborts the interpreter that ends in order (pyo3-async-runtimes, issue 40)
        os._exit(status)
    sys.exit(status)


def _open_closed_descriptors() -> None:
    """Have descriptors 0, 1 and 2 lead nowhere where whoever started the program has closed them.

    The next file that is opened would be taken for one of them: what is logged would go into it.
    """
    # a folder that somebody has made a root of may have no /dev
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)


if __name__ == "__main__":
    main()

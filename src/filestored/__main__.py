"""``python -m filestored``, and the installed command ``filestored``."""

import os
import sys


def main() -> None:
    """Run the command line and leave with its exit status."""
    try:
        from filestored.cli.commands import main as run_command
    except KeyboardInterrupt:
        sys.exit(130)
    status = run_command()
    if "obstore" in sys.modules:
        # now and then it aborts the interpreter that ends in order (pyo3-async-runtimes, issue 40)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()

"""``python -m filestored``, and the installed command ``filestored``."""

import sys


def main() -> None:
    """Run the command line and leave with its exit status."""
    try:
        from filestored.cli.commands import main as run_command
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run_command())


if __name__ == "__main__":
    main()

"""``python3 main.py COMMAND``: filestored from a checkout, installed or not."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> None:
    """Run the command line with the interpreter that has the libraries: this one, or that of ``.venv``.

    Where there is no ``.venv`` and this one has the client's only, that will do: each command says what it lacks.
    """
    source = str(ROOT / "src")
    sys.path.insert(0, source)
    # for the processes that are started in the background
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    everything = ("click", "granian", "httpx", "loguru", "pydantic", "sqlalchemy")
    # not resolved: a virtual environment is told by the name its interpreter is called by
    python = ROOT / ".venv" / "bin" / "python"
    if not all(find_spec(name) for name in everything) and python.exists() and Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), str(ROOT / "main.py"), *sys.argv[1:]])  # noqa: S606
    if not find_spec("click"):
        sys.exit("filestored: run `make install` first")
    from filestored.__main__ import main as run_command

    run_command()


if __name__ == "__main__":
    main()

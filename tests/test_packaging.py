"""What each extra brings, in clean environments made from the wheel: a client has nothing of the server's."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from packaging.utils import canonicalize_name

from filestored import __version__, extras
from tests.conftest import Daemon, StartDaemon
from tests.installing import ROOT, build_wheel, install, installed_in, locked, needed_by
from tests.test_project import PROJECT

pytestmark = pytest.mark.timeout(300)

SCRIPT = ROOT / "setup_systemd.sh"
INSTALLING = (ROOT / "docs" / "installing.md").read_text()

SERVERS = {
    "alembic",
    "blake3",
    "granian",
    "loguru",
    "prometheus-client",
    "pydantic",
    "python-multipart",
    "segno",
    "sqlalchemy",
    "swagger-ui-py",
    "uvloop",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def client_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("client"), "client")


@pytest.fixture(scope="module")
def server_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("server"), "server")


def run(command: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("FILESTORED_", "PYTHON"))}
    return subprocess.run(
        [command, *words],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        env={**clean, "XDG_CONFIG_HOME": "/nonexistent", **environment},
    )  # fmt: skip


def test_without_extras_there_is_the_command_line_and_click(bare: Path) -> None:
    assert installed_in(bare) == {"filestored", "click"}
    told = run(bare / "filestored", "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert "put" in told.stdout
    assert run(bare / "python", "-I", "-c", "import filestored; print(filestored.__version__)").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("start", "--help"),
        ("status",),
        ("scrub",),
        ("doctor",),
        ("config",),
        ("import", "."),
        ("copy-store", ".", "."),
    ],
)
def test_a_command_of_the_server_says_which_libraries_it_lacks(bare: Path, words: tuple[str, ...]) -> None:
    ended = run(bare / "filestored", *words)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "filestored: the server's libraries are not installed: pip install 'filestored[server]'\n"


@pytest.mark.parametrize("words", [("put", "/etc/hostname"), ("get", "0" * 64), ("ls",), ("info", "0" * 64)])
def test_a_command_of_the_client_says_which_libraries_it_lacks(bare: Path, words: tuple[str, ...]) -> None:
    ended = run(bare / "filestored", *words)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "filestored: the client's libraries are not installed: pip install 'filestored[client]'\n"


def test_the_library_says_which_libraries_it_lacks(bare: Path) -> None:
    ended = run(bare / "python", "-I", "-c", "from filestored import Client")
    assert ended.returncode == 1
    assert ended.stderr.endswith("the client's libraries are not installed: pip install 'filestored[client]'\n")


def test_a_client_has_nothing_of_the_servers(client_only: Path) -> None:
    there = installed_in(client_only)
    assert there == needed_by("client") | {"filestored"}
    assert {"httpx", "fsspec", "rich"} <= there
    assert not there & SERVERS
    ended = run(client_only / "filestored", "run")
    assert ended.stderr == "filestored: the server's libraries are not installed: pip install 'filestored[server]'\n"


def test_a_client_alone_stores_and_reads_by_command(client_only: Path, daemon: Daemon, tmp_path: Path) -> None:
    command = client_only / "filestored"
    content = os.urandom(3 << 20)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "some.bin").write_bytes(content)
    env = {"FILESTORED_URL": daemon.url, "XDG_STATE_HOME": str(tmp_path / "state")}
    stored = run(command, "put", str(tmp_path / "some.bin"), **env)
    assert (stored.returncode, stored.stdout, stored.stderr) == (0, f"{digest}\n", "")
    fetched = run(command, "get", digest, "-o", str(tmp_path / "back.bin"), **env)
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "back.bin").read_bytes() == content
    link = run(command, "link", digest, **env)
    assert (link.returncode, link.stderr) == (0, "")
    assert digest in link.stdout
    assert run(command, "rm", digest, **env).returncode == 0
    assert run(command, "info", digest, **env).returncode == 3


def test_main_py_does_with_the_clients_libraries_where_there_are_no_others(client_only: Path, tmp_path: Path) -> None:
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "main.py").write_bytes((ROOT / "main.py").read_bytes())
    python = client_only / "python"
    assert "put" in run(python, str(tmp_path / "main.py"), "--help").stdout
    ended = run(python, str(tmp_path / "main.py"), "run")
    assert ended.stderr == "filestored: the server's libraries are not installed: pip install 'filestored[server]'\n"


def test_a_client_alone_reads_by_fsspec(client_only: Path, daemon: Daemon) -> None:
    code = """
import os
import fsspec
from filestored import Client
with Client(os.environ["FILESTORED_URL"]) as client:
    stored = client.put(b"a,b\\n1,2\\n", name="table.csv")
host = os.environ["FILESTORED_URL"].removeprefix("http://")
with fsspec.open(f"filestored://{host}/{stored.hash}/table.csv", "rt") as table:
    print(table.read(), end="")
"""
    ended = run(client_only / "python", "-c", code, FILESTORED_URL=daemon.url)
    assert (ended.returncode, ended.stdout) == (0, "a,b\n1,2\n"), ended.stderr


def test_a_client_without_blake3_says_so_where_files_are_named_by_it(
    client_only: Path, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon("--hash", "blake3")
    env = {"FILESTORED_URL": daemon.url, "XDG_STATE_HOME": str(tmp_path / "state")}
    digest = httpx.post(daemon.url, content=b"Hello").text
    ended = run(client_only / "filestored", "get", digest, "-o", "-", **env)
    assert ended.returncode == 1
    assert "the library for BLAKE3 is not installed: pip install 'filestored[blake3]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("code", ["import filestored", "from filestored.cli.commands import main; main(['--help'])"])
def test_what_everybody_waits_for_imports_no_library(code: str) -> None:
    """All of them are installed here: nothing may import them as it pleases."""
    names = [*SERVERS, "httpx", "anyio", "fsspec", "rich", "tomlkit", "obstore", "prometheus_client"]
    ended = run(Path(sys.executable), "-c", f"{code}\nimport sys; print([n for n in {names} if n in sys.modules])")
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


def test_every_library_of_an_extra_is_known_by_the_name_it_is_imported_by() -> None:
    listed = PROJECT["project"]["optional-dependencies"]
    requirements = {line for extra in listed if extra != "all" for line in listed[extra]}
    # the last one's files are looked up, it is never imported
    names = {canonicalize_name(re.split(r"[\[<>=]", line)[0]) for line in requirements} - {"swagger-ui-py"}
    modules = packages_distributions()
    for name in names:
        own = [module for module, of in modules.items() if name in map(canonicalize_name, of)]
        told = [str(extras.explained(ModuleNotFoundError(name=module))) for module in own]
        assert any("pip install 'filestored[" in each for each in told), name
    assert extras.explained(ModuleNotFoundError(name="no_such_module")) is None


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    source = ROOT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in (source / "filestored").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    there = {name for name in ZipFile(wheel).namelist() if not name.startswith("filestored-")}
    assert there == wanted
    assert {"filestored/web/index.html", "filestored/catalogue/migrations/env.py", "filestored/py.typed"} <= there
    described = message_from_bytes(read_metadata(wheel))
    assert described["Version"] == __version__
    assert set(described.get_all("Provides-Extra", [])) == {
        "server",
        "client",
        "buckets",
        "postgresql",
        "blake3",
        "all",
    }


def read_metadata(wheel: Path) -> bytes:
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name)


def test_what_make_dist_builds_is_complete(wheel: Path, tmp_path: Path) -> None:
    """The wheel, and an archive of the sources that the same wheel comes of."""
    hatchling = [sys.executable, "-m", "hatchling", "build", "--directory"]
    subprocess.run([*hatchling, str(tmp_path / "dist")], cwd=ROOT, check=True, capture_output=True, timeout=100)
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    (built,) = (tmp_path / "dist").glob("*.whl")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    sources = tmp_path / archive.name.removesuffix(".tar.gz")
    # whatever a file of the tests is compared with is there, too
    for path in (
        "Dockerfile",
        "compose.yaml",
        ".dockerignore",
        "setup_systemd.sh",
        "Makefile",
        "tools",
        "deploy",
        "docs",
    ):
        assert (sources / path).exists(), path
    subprocess.run([*hatchling, str(tmp_path / "again"), "-t", "wheel"], cwd=sources, check=True, timeout=100)
    (again,) = (tmp_path / "again").glob("*.whl")
    names = [sorted(ZipFile(each).namelist()) for each in (wheel, built, again)]
    assert names[0] == names[1] == names[2]


def test_a_server_installed_by_pip_alone_does_its_work(server_only: Path, tmp_path: Path) -> None:
    """From an empty folder and environment, as whoever installs it has them; nothing of the checkout is there."""
    command = server_only / "filestored"
    assert run(command, "--version").stdout == f"filestored {__version__}\n"
    checked = subprocess.run(
        [sys.executable, "-m", "pip", "--python", server_only / "python", "check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    env = {"FILESTORED_STORE": str(tmp_path / "store"), "FILESTORED_HOST": "127.0.0.1", "FILESTORED_PORT": "0"}
    started = run(command, "start", "--workers", "1", **env)
    assert started.returncode == 0, started.stderr
    url = started.stdout.split()[-1]
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            page = client.get("/", headers={"Accept": "text/html"})
            assert page.headers["content-type"].startswith("text/html")
            for path in (ROOT / "src" / "filestored" / "web").glob("*.*"):
                if path.name != "index.html":
                    assert client.get(f"/web/{path.name}").content == path.read_bytes(), path.name
            assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
            assert client.get("/docs").status_code == 200
            digest = client.post("/?name=hello.txt", content=b"Hello, world!").text
            assert client.get(f"/{digest}").text == "Hello, world!"
            # the catalogue's tables are there, made by the migrations
            assert [file["name"] for file in client.get("/v1/files").json()["files"]] == ["hello.txt"]
            assert client.delete(f"/?file_hash={digest}").status_code == 200
            assert client.get(f"/{digest}").status_code == 404
        assert run(command, "restart", **env).returncode == 0
        assert run(command, "status", "--ready", **env).returncode == 0
        assert run(command, "scrub", **env).returncode == 0
    finally:
        stopped = run(command, "stop", **env)
    assert stopped.returncode == 0, stopped.stderr


DOCUMENTED = re.findall(r"`((?:pipx|uv tool) install) 'dist/filestored-….whl\[all\]'`", INSTALLING)


@pytest.mark.parametrize("words", DOCUMENTED)
def test_programs_that_install_programs_install_this_one(words: str, wheel: Path, tmp_path: Path) -> None:
    """As docs/installing.md says, for oneself and apart from everything else."""
    places = {name: str(tmp_path / name) for name in ("PIPX_HOME", "PIPX_BIN_DIR", "PIPX_MAN_DIR", "UV_TOOL_DIR")}
    env = {**places, "UV_TOOL_BIN_DIR": places["PIPX_BIN_DIR"], "UV_CACHE_DIR": str(tmp_path / "cache")}
    # with this interpreter, and from where pip takes packages
    env |= {"UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never", **index_for_uv()}
    program, *rest = words.split()
    ended = run(Path(sys.executable).parent / program, *rest, f"{wheel}[all]", **env)
    assert ended.returncode == 0, ended.stderr
    command = Path(places["PIPX_BIN_DIR"]) / "filestored"
    assert run(command, "--version").stdout == f"filestored {__version__}\n"
    store = ("--store", str(tmp_path / "store"))
    started = run(command, "start", "--workers", "1", "--host", "127.0.0.1", "--port", "0", *store)
    assert started.returncode == 0, started.stderr
    try:
        assert httpx.get(f"{started.stdout.split()[-1]}/readyz").status_code == 200
    finally:
        assert run(command, "stop", *store).returncode == 0


def test_both_of_them_are_documented() -> None:
    assert sorted(DOCUMENTED) == ["pipx install", "uv tool install"]


def test_a_service_is_installed_where_everybody_can_run_it(wheel: Path, tmp_path: Path) -> None:
    """The block of docs/installing.md up to the script, in other folders; of the libraries what `--version` needs."""
    (block,) = re.findall(r"^```sh\n(make dist\n.*?)```", INSTALLING, re.MULTILINE | re.DOTALL)
    _, *steps, last = block.splitlines()
    assert last.startswith("sudo ./setup_systemd.sh ")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / wheel.name).symlink_to(wheel)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").write_text("\n".join(locked(needed_by())) + "\n")
    (tmp_path / "bin").mkdir()
    placed = "\n".join(steps).replace("sudo ", "").replace("/usr/local/bin", f"{tmp_path}/bin")
    placed = placed.replace("/opt/filestored", f"{tmp_path}/opt")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    ended = subprocess.run(["sh", "-ec", placed], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr[-2000:]
    command = tmp_path / "bin" / "filestored"
    assert run(command, "--version").stdout == f"filestored {__version__}\n"
    assert command.readlink() == tmp_path / "opt" / "bin" / "filestored"
    assert last.split()[1] == f"./{SCRIPT.name}"
    # where it is looked for by default
    assert re.search(r"^ +program=/usr/local/bin/filestored$", SCRIPT.read_text(), re.MULTILINE)


def index_for_uv() -> dict[str, str]:
    """Return what pip is told of package indexes, in the words of uv, which does not ask pip."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    told = dict(re.findall(r"^[^=]*\.([a-z-]+)='(.*)'$", listed.stdout, re.MULTILINE))
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
    # the best of all of them, as with pip
    return {"UV_INDEX_STRATEGY": "unsafe-best-match"} | {names[key]: told[key] for key in names if key in told}

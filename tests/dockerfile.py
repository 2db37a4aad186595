"""Carrying out a Dockerfile's steps without an engine: each stage is a folder, and stands for the image's root.

Only what this project's Dockerfile uses is known; anything else is an error, so that nothing goes untested unnoticed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

_KNOWN = {"COPY", "WORKDIR", "ENV", "RUN", "LABEL", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}


@dataclass
class Stage:
    """What the steps of a stage have come to."""

    base: str
    folder: Path
    workdir: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    port: int = 0
    volume: str = ""

    def inside(self, path: str) -> Path:
        """Return where a path of the image lies, relative ones below its working folder."""
        return self.folder / (path if path.startswith("/") else f"{self.workdir}/{path}").lstrip("/")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions and their arguments, lines that go on put together."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def context(root: Path, folder: Path) -> None:
    """Copy what an engine would be sent: what .dockerignore, which names what is taken, lets through."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    dropped = [rule.removeprefix("**/") for rule in rules[1:] if not rule.startswith("!")]
    for rule in rules[1:]:
        if rule.startswith("!"):
            source, target = root / rule[1:], folder / rule[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(*dropped))
            else:
                shutil.copy(source, target)


def build(root: Path, folder: Path) -> Stage:
    """Carry out the Dockerfile in ``root``, below ``folder``; return the last stage.

    This interpreter stands for the base image's. What the last stage runs makes users and folders of the system, and
    is left to the caller.
    """
    context(root, folder / "context")
    stages: dict[str, Stage] = {}
    stage = Stage("", folder)
    for word, rest in instructions((root / "Dockerfile").read_text()):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = Stage(base, folder / f"stage{len(stages)}")
            stage.folder.mkdir()
            stages[name] = stage
        elif word == "RUN" and name == "":
            continue
        else:
            _carry_out(stage, stages, folder / "context", word, rest)
    return stage


def _carry_out(stage: Stage, stages: dict[str, Stage], sent: Path, word: str, rest: str) -> None:
    assert word in _KNOWN | {"ENTRYPOINT", "CMD"}, word
    if word == "WORKDIR":
        stage.workdir = rest
        stage.inside(rest).mkdir(parents=True, exist_ok=True)
    elif word == "ENV":
        stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
    elif word == "COPY":
        _copy(stage, stages, sent, rest.split())
    elif word == "RUN":
        _run(stage, rest)
    elif word in ("ENTRYPOINT", "CMD"):
        setattr(stage, {"ENTRYPOINT": "entrypoint", "CMD": "command"}[word], json.loads(rest))
    elif word == "HEALTHCHECK":
        stage.health = json.loads(rest[rest.index("[") :])
    elif word == "USER":
        stage.user = rest
    elif word == "VOLUME":
        stage.volume = rest
    elif word == "EXPOSE":
        stage.port = int(rest)


def _copy(stage: Stage, stages: dict[str, Stage], sent: Path, words: list[str]) -> None:
    source_root = sent
    if words[0].startswith("--from="):
        source_root = stages[words.pop(0).removeprefix("--from=")].folder
    *sources, target = words
    for name in sources:
        source, place = source_root / name.lstrip("/"), stage.inside(target)
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)


def _run(stage: Stage, command: str) -> None:
    """Run a shell's command with the paths of the image taken for those below its folder."""
    programs = stage.folder / "programs"
    programs.mkdir(exist_ok=True)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    placed = command.replace("/opt/", f"{stage.folder}/opt/")
    ended = subprocess.run(
        ["/bin/sh", "-ec", placed], cwd=stage.inside("."), capture_output=True, text=True, timeout=280,
        env={**stage.env, "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(stage.folder), **_pip_settings()},
    )  # fmt: skip
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"


def _pip_settings() -> dict[str, str]:
    """Return what this machine tells pip: where packages come from is not the image's affair."""
    kept = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_CONFIG_FILE", "SSL_CERT_FILE")
    return {name: value for name, value in os.environ.items() if name in kept}

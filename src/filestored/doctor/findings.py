"""What a check is given, and what it answers."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from filestored.blobs.layout import StoreFolder
from filestored.catalogue.address import Address
from filestored.daemon import Holder
from filestored.errors import CatalogueError
from filestored.extras import explained
from filestored.settings import Loaded, Settings

# an error of a start is a sentence that goes on with what to do
_ADVICE = re.compile(r"[;:] ((?:name|restore|upgrade|look at|set) .*)")


class State(StrEnum):
    """How bad a finding is."""

    GOOD = "good"
    SKIPPED = "skipped"
    """It could not be looked at, or there is nothing to look at."""
    WARNING = "warning"
    """The daemon works, but perhaps not as it should."""
    FAULT = "fault"
    """It has to be mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, in a sentence, and what mends it, in another, where anything is to be mended."""

    state: State
    found: str
    mend: str = ""


def good(found: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(State.GOOD, found)


def skipped(found: str) -> Finding:
    """Say that something was not looked at, and why."""
    return Finding(State.SKIPPED, found)


def warning(found: str, mend: str) -> Finding:
    """Say that something may be better."""
    return Finding(State.WARNING, found, mend)


def fault(found: str, mend: str) -> Finding:
    """Say that something has to be mended."""
    return Finding(State.FAULT, found, mend)


def refused(reason: str, mend: str) -> Finding:
    """Say why a start would be refused; ``mend`` is what helps where the reason does not say so itself."""
    advice = _ADVICE.search(reason)
    return fault(reason, mend) if advice is None else fault(reason[: advice.start()], advice[1])


def lacking(error: ImportError) -> Finding:
    """Say which library is not installed, and how to install it."""
    found, _, command = str(explained(error) or error).partition(": ")
    return fault(found, command or "install it")


@dataclass(frozen=True, slots=True)
class Situation:
    """What is examined: the settings a daemon would have, and the one that runs on the store, if any."""

    loaded: Loaded
    holder: Holder | None
    wrong: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with settings that cannot be used, by their names; they are left at their defaults."""
    failures: list[CatalogueError] = field(default_factory=list)
    """Why the catalogue could not be read, once it could not: no other check waits for it again."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @property
    def path(self) -> Path:
        """The local folder that the daemon works in: the store, or the spool of one in a bucket."""
        return self.settings.folder

    @property
    def folder(self) -> StoreFolder:
        """The folder's paths; it need not be there."""
        return StoreFolder(self.path, self.settings.hash, self.settings.bucket)

    @property
    def called(self) -> str:
        """What the folder is called: the store itself, or the spool of one in a bucket."""
        return "the store" if self.settings.bucket is None else "the spool"

    @property
    def option(self) -> str:
        """The option that names the folder."""
        return "--store" if self.settings.bucket is None else "--spool"

    @property
    def catalogue(self) -> Address:
        """Where the catalogue is."""
        return self.settings.catalogue_address or self.folder.catalogue_file

    @property
    def place(self) -> Path:
        """The folder, or where that is missing the nearest one above it: on the same disk."""
        path = self.path
        while not path.is_dir() and path != path.parent:
            path = path.parent
        return path


Check = Callable[[Situation], Iterator[Finding]]

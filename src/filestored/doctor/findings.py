"""What a check is given, and what it answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from filestored.blobs.layout import StoreFolder
from filestored.catalogue.address import Address
from filestored.daemon import Holder
from filestored.settings import Loaded, Settings


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


@dataclass(frozen=True, slots=True)
class Situation:
    """What is examined: the settings a daemon would have, and the one that runs on the store, if any."""

    loaded: Loaded
    holder: Holder | None

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
        """The store's folder, which need not be there."""
        return StoreFolder(self.path, self.settings.hash)

    @property
    def catalogue(self) -> Address:
        """Where the catalogue is."""
        return self.settings.catalogue_address or self.folder.catalogue_file

    @property
    def place(self) -> Path:
        """The store's folder, or where that is missing the nearest one above it: on the same disk."""
        path = self.path
        while not path.is_dir() and path != path.parent:
            path = path.parent
        return path


Check = Callable[[Situation], Iterator[Finding]]

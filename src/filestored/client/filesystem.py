"""An fsspec file system, ``filestored://host[:port]/HASH``: for pandas, dask, xarray and whatever opens addresses.

A path is a hash, and may go on with a file name that readers guess a format from (``HASH/table.csv``). The root
holds the caller's own files. Files are named by their content, so one is written only under the hash that it has.

Whole files (``cat_file``, ``get_file``, and what is read of an opened file at once) are compared with their hash;
ranges are read as they are. Errors are Python's own: FileNotFoundError, PermissionError, ConnectionError, OSError.
"""

import errno
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike

from filestored.client.addresses import SCHEME, find_connection, split_address
from filestored.client.openfile import OpenFile
from filestored.client.oserrors import as_os_errors
from filestored.client.records import File
from filestored.client.sharing import shared_client
from filestored.digest import parse_digest

if TYPE_CHECKING:
    from filestored.client import Client

_RANGES_AT_ONCE = 8


class FilestoredFileSystem(AbstractFileSystem):
    """The files of one server, by hash.

    Options, besides those of fsspec: ``host`` (taken from the address: ``host[:port]``, or the name of a server in
    the configuration), ``server`` (the same or ``https://…``, where there is no address or it does not say all),
    ``token``, ``secure`` (True: https, False: http; by default http for this machine only), ``verify`` (False, or the
    path of a CA's certificate), ``block_size`` (bytes read ahead of an open file, 5 MiB) and ``client_options``, what
    else :class:`filestored.Client` takes (``timeout``, ``retry_for``, …).

    Without ``token`` that of the configured server is used, and ``FILESTORED_TOKEN`` only where ``FILESTORED_URL`` is
    this very server. It can be pickled, used by several threads and after a fork.
    """

    protocol = "filestored"
    root_marker = ""
    async_impl = False

    def __init__(
        self,
        host: str | None = None,
        server: str | None = None,
        token: str | None = None,
        secure: bool | None = None,
        verify: bool | str | None = None,
        block_size: int | None = None,
        client_options: Mapping[str, Any] | None = None,
        **storage_options: Any,
    ) -> None:
        super().__init__(**storage_options)
        self._reach = partial(find_connection, host=host, server=server, token=token, secure=secure, verify=verify)
        self._block_size = block_size or OpenFile.DEFAULT_BLOCK_SIZE
        self._client_options = dict(client_options or {})
        self._host = host or (urlsplit(server).netloc if server and "://" in server else server)
        # a wrong address is told at once, not when something is read
        self._reach()

    @property
    def client(self) -> "Client":
        """The client that asks the server, shared by all that ask the same; another after variables have changed."""
        return shared_client(self._reach(), self._client_options)

    # addresses

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = os.fspath(path)
        if text.startswith(SCHEME):
            _, text = split_address(text)
        hash_, slash, rest = text.strip("/").partition("/")
        return (parse_digest(hash_) or hash_) + slash + rest

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        host, _ = split_address(path) if path.startswith(SCHEME) else ("", path)
        return {"host": host} if host else {}

    def unstrip_protocol(self, name: str) -> str:
        """Return the full address of a path, with the host where there is one."""
        return f"{SCHEME}{self._host or ''}/{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        """The same for all instances that read from one server."""
        return f"filestored-{self._reach().url}"

    # looking

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return ``name`` (the path), ``size`` in bytes, ``type`` ("file"), ``hash``, ``filename`` and ``mimetype``.

        It takes one request, which whoever may read may make.
        """
        path = self._strip_protocol(path)
        if path == self.root_marker:
            return {"name": "", "size": 0, "type": "directory"}
        digest = _hash_of(path)
        with as_os_errors(path):
            head = self.client.head(digest)
        return {
            "name": path,
            "size": head.size,
            "type": "file",
            "hash": digest,
            "filename": head.name,
            "mimetype": head.type,
        }

    def ls(self, path: str = "", detail: bool = True, **_: Any) -> list[Any]:
        """List the root: the caller's own files (all with ``admin``), newest first; of a file, the file itself."""
        path = self._strip_protocol(path)
        if path != self.root_marker:
            found = [self.info(path)]
        else:
            with as_os_errors(path):
                # a file of several owners is seen several times by an admin
                found = list({file.hash: _entry(file) for file in self.client.list()}.values())
        return found if detail else [entry["name"] for entry in found]

    def exists(self, path: str, **_: Any) -> bool:
        """Tell whether a file is there; what cannot be told (no connection, no permission) is raised."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def created(self, path: str) -> datetime:
        """Return when the caller's own file was uploaded (UTC)."""
        with as_os_errors(path):
            return self.client.info(_hash_of(self._strip_protocol(path))).created_at

    def modified(self, path: str) -> datetime:
        """Return the same: content does not change under its hash."""
        return self.created(path)

    def ukey(self, path: str) -> str:
        """Return what changes with the content: its hash, without asking the server."""
        return _hash_of(self._strip_protocol(path))

    def checksum(self, path: str) -> int:
        """Return the hash as a number, as fsspec has it."""
        return int(self.ukey(path), 16)

    def sign(self, path: str, expiration: float = 100, **_: Any) -> str:
        """Return an address that reads the file without a token for ``expiration`` seconds."""
        with as_os_errors(path):
            return self.client.link(_hash_of(self._strip_protocol(path)), expires_in=f"{int(expiration)}s").url

    # reading

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> OpenFile:
        if mode == "xb" and self.exists(path):
            raise FileExistsError(f"{path} is stored already")
        return OpenFile(
            self,
            path,
            mode,
            block_size or self._block_size,
            autocommit=autocommit,
            cache_options=cache_options,
            **kwargs,
        )

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return a file's bytes, compared with its hash; or a range of them, negative from the end, as of a slice."""
        path = self._strip_protocol(path)
        digest = _hash_of(path)
        with as_os_errors(path):
            if start is None and end is None:
                return self.client.get(digest)
            if start is None or end is None or start < 0 or end < 0:
                start, end, _step = slice(start, end).indices(self.client.head(digest).size)
            return self.client.read(digest, start, end) if start < end else b""

    def cat_ranges(
        self,
        paths: list[str],
        starts: list[int] | int,
        ends: list[int] | int,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Return ranges of files, several read at once; with ``on_error="return"`` errors stand in their places."""
        if max_gap is not None:
            raise NotImplementedError("ranges are read as they are asked for: max_gap cannot be heeded")
        firsts = starts if isinstance(starts, list) else [starts] * len(paths)
        lasts = ends if isinstance(ends, list) else [ends] * len(paths)
        wanted = list(zip(paths, firsts, lasts, strict=True))

        def read(path: str, start: int, end: int) -> bytes | Exception:
            try:
                return self.cat_file(path, start, end)
            except Exception as error:
                if on_error == "return":
                    return error
                raise

        with ThreadPoolExecutor(_RANGES_AT_ONCE, "filestored-ranges") as pool:
            return [answer.result() for answer in [pool.submit(read, *each) for each in wanted]]

    def get_file(
        self,
        rpath: str,
        lpath: Any = None,
        callback: Callback = DEFAULT_CALLBACK,
        outfile: BinaryIO | None = None,
        **_: Any,
    ) -> None:
        """Download a file, resuming what an earlier try left, and compare it with its hash before it takes its name."""
        path = self._strip_protocol(rpath)
        to: Any = lpath if outfile is None else outfile
        if path == self.root_marker:
            os.makedirs(to, exist_ok=True)
            return
        digest = _hash_of(path)
        if not isfilelike(to):
            to = os.fspath(to)
            os.makedirs(os.path.dirname(to) or ".", exist_ok=True)
        with as_os_errors(path):
            self.client.get(digest, to, progress=_reporting(callback), replace=True)

    # writing

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Store bytes under the hash that they have. Raises ValueError where the path names another."""
        self.store(value, self._strip_protocol(path), mode)

    def put_file(
        self, lpath: Any, rpath: str, callback: Callback = DEFAULT_CALLBACK, mode: str = "overwrite", **_: Any
    ) -> None:
        """Upload a file under the hash that it has. Raises ValueError where the path names another."""
        if os.path.isdir(lpath):
            return
        self.store(os.fspath(lpath), self._strip_protocol(rpath), mode, _reporting(callback))

    def store(
        self,
        source: Any,
        path: str,
        mode: str = "overwrite",
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        """Upload a path, bytes or a file. Raises ValueError where its hash is not that of ``path``."""
        digest = _hash_of(path)
        name = path.partition("/")[2].rpartition("/")[2] or None
        if mode == "create" and self.exists(path):
            raise FileExistsError(f"{path} is stored already")
        with as_os_errors(path, writing=True):
            self.client.put(source, name=name, hash=digest, progress=progress)

    def _rm(self, path: str) -> None:
        """Delete the caller's file."""
        path = self._strip_protocol(path)
        if path == self.root_marker:
            raise PermissionError("all files cannot be deleted at once: name them by their hashes")
        with as_os_errors(path):
            self.client.delete(_hash_of(path))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files by path or pattern; the root is refused, also with ``recursive``."""
        for each in path if isinstance(path, list) else [path]:
            if self._strip_protocol(each) == self.root_marker:
                self._rm(each)
        super().rm(path, recursive=recursive, maxdepth=maxdepth)


def _hash_of(path: str) -> str:
    """Return the hash that a path begins with. Raises FileNotFoundError where it cannot be one, as a server would."""
    digest = parse_digest(path.partition("/")[0])
    if digest is None:
        raise FileNotFoundError(errno.ENOENT, "a path begins with the hash of a file", path)
    return digest


def _entry(file: File) -> dict[str, Any]:
    return {
        "name": file.hash,
        "size": file.size,
        "type": "file",
        "hash": file.hash,
        "filename": file.name,
        "mimetype": file.type,
        "created": file.created_at,
        "expires": file.expires_at,
    }


def _reporting(callback: Callback) -> Callable[[int, int | None], None]:
    """Return what the client calls with the bytes so far and in all, to tell an fsspec callback of it."""

    def report(done: int, size: int | None) -> None:
        if size is not None and callback.size != size:
            callback.set_size(size)
        callback.absolute_update(done)

    return report

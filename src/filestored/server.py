"""Running the daemon: a supervisor that owns the store and the port, and the worker processes under it.

::

    supervisor   StoreFolder.adopt → StoreLock → prepare → port → Granian, which starts and watches the workers
    worker       load_application: log, application; Granian calls it for each request

The supervisor answers no requests. Granian is imported only when it starts, so that this module costs nothing
to the other commands.
"""

import asyncio
import contextlib
import errno
import gc
import multiprocessing
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from loguru import logger

from filestored import __version__, logs
from filestored.access import Access
from filestored.apart import call_apart
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import adopt_blobs
from filestored.daemon import LastStart, StoreLock
from filestored.errors import CatalogueUnavailable, FilestoredError, StartError
from filestored.service import Service
from filestored.settings import Settings
from filestored.signals import die_with_parent, heed_signals, leave_if_told
from filestored.startable import require_certificate, require_startable
from filestored.starting import begin_ready, join_others
from filestored.supervision import (
    Respawned,
    Rest,
    end_workers,
    give_memory_back,
    quiet_when_stopping,
    replace_with_care,
)

if TYPE_CHECKING:
    from granian.server.common import AbstractServer

    from filestored.api.exchange import Message, Receive, Scope, Send
    from filestored.cluster.daemons import Membership

    AsgiCallable = Callable[[Scope, Receive, Send], Awaitable[None]]

DRAIN_SECONDS = 30
"""How long running requests may take to finish when the daemon is told to stop."""

_LIBRARIES = ("filestored.api.app", "filestored.filestore", "granian.server", "uvloop")
_BACKPRESSURE = 16384
# bytes; with more, slow readers hold more memory, and nothing gets faster
_CONNECTION_BUFFER = 128 * 1024
_SIGNAL_SECONDS = 0.2
_WORKER_WAIT_SECONDS = 1.0


class Endpoint(NamedTuple):
    """Where the daemon listens: a numeric address, a port that is free, and what clients are told."""

    address: str
    port: int
    url: str


def serve(settings: Settings, last_start: LastStart | None = None) -> int:
    """Run the daemon until it is told to stop; return the exit status, 0 after SIGTERM or SIGINT.

    ``last_start`` is kept in the store for ``restart``. Raises StartError where the store, the port or the
    catalogue cannot be used, or a worker cannot start. Call it from the main thread.
    """
    try:
        heed_signals()
        service = Service.of(os.environ)
        if settings.bucket is None:
            require_startable(settings)
        else:
            call_apart(partial(require_startable, settings), may_break_off=True)
        leave_if_told()
        folder = StoreFolder.adopt(settings.folder, settings.hash, settings.bucket)
        with StoreLock.take(folder.pid_file) as lock:
            logs.configure(settings.log, settings.log_format, settings.log_file)
            _remember(last_start, folder)
            if folder.bucket is not None:
                # a bucket has a mark whole or not at all
                call_apart(partial(adopt_blobs, folder), may_break_off=True)
            leave_if_told()
            service.tell("makes the store ready")
            ready = begin_ready(settings, folder)
            # meanwhile, on another processor
            _load_libraries()
            tokens = ready()
            leave_if_told()
            endpoint = find_endpoint(settings)
            _raise_descriptor_limit()
            lock.publish(endpoint.url)
            membership = join_others(settings, endpoint.address, endpoint.port, folder)
            _announce(settings, endpoint, Access(settings.anonymous, tokens))
            with service.attending(endpoint.url):
                return _supervise(settings, endpoint, membership, service, lock)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1


def _remember(last_start: LastStart | None, folder: StoreFolder) -> None:
    if last_start is not None:
        try:
            last_start.remember(folder.path)
        except StartError as error:
            logger.warning("a restart will not know these settings: {}", error)


def find_endpoint(settings: Settings) -> Endpoint:
    """Resolve the host and see that nobody else has the port; 0 becomes a port that is free. Raises StartError.

    Granian's workers share the port, and so would quietly share it with another program.
    """
    host, port = settings.host, settings.port
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise StartError(f"the host {host} is not known here: {error}") from error
    with socket.socket(family, kind) as probe:
        # without it the connections that a daemon has just closed would keep the next one from starting
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except PermissionError as error:
            raise StartError(f"port {port} on {host} needs more rights than this user has") from error
        except OSError as error:
            raise StartError(_why_not(error, host, port)) from error
        port = probe.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(str(address[0]), port, f"{'https' if settings.tls_cert else 'http'}://{shown}:{port}")


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine"
    return f"port {port} on {host} cannot be used: {error.strerror or error}"


def _raise_descriptor_limit() -> None:
    """Allow as many open files and connections as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _announce(settings: Settings, endpoint: Endpoint, access: Access) -> None:
    logger.info(
        "filestored {} serves {} at {} ({}, workers: {}, durability: {})",
        __version__, settings.store, endpoint.url, settings.hash.value, settings.workers, settings.durability,
    )  # fmt: skip
    logger.info("access: {}", access.describe())
    if "*" in settings.cors_origin:
        logger.warning("--cors-origin *: every web site may do through its visitors' browsers whatever these may do")


def _load_libraries() -> None:
    """Import what the workers need: they are forked, and so have it at once, and in memory that they share."""
    for name in _LIBRARIES:
        import_module(name)


def _supervise(
    settings: Settings, endpoint: Endpoint, membership: "Membership | None", service: Service, lock: StoreLock
) -> int:
    """Run Granian until it ends, and tell an ordered end from a failure."""
    multiprocessing.set_start_method("fork", force=True)
    failures, failure = multiprocessing.Pipe(duplex=False)
    granian = _granian(settings, endpoint)
    # the last look, when Granian has taken the signals over and has not started a worker yet
    granian.on_startup(leave_if_told)
    shared_file = StoreFolder(settings.folder, settings.hash).shared_file
    require_reloadable = partial(require_certificate, settings)
    granian.main_loop_interrupt = Rest(granian, shared_file, settings.stop_delay, service, require_reloadable)
    granian.respawned_wrks = Respawned(settings.workers)
    replace_with_care(granian)
    give_memory_back()
    # what is never looked through is never written to, and stays shared
    gc.freeze()
    with quiet_when_stopping(granian):
        try:
            granian.serve(
                target_loader=partial(load_application, settings, membership, failure, lock), wrap_loader=False
            )
        except SystemExit as leaving:
            # Granian's way to say that a worker ended unasked, also where a stop of the process group ended it
            if leaving.code and not granian.interrupt_signal:
                raise StartError("the worker processes end again and again; the log says why") from None
        finally:
            # whatever has happened: the store is not given up while somebody serves it
            end_workers(granian)
    if failures.poll():
        raise StartError(failures.recv())
    logger.info("stopped")
    return 0


def _granian(settings: Settings, endpoint: Endpoint) -> "AbstractServer[Any]":
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes, SSLProtocols, TaskImpl
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    is_talkative = settings.log in ("trace", "debug")
    options: dict[str, Any] = {"process_name": "filestored"} if find_spec("setproctitle") else {}
    return Granian(
        target="filestored",
        address=endpoint.address,
        port=endpoint.port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        runtime_mode=RuntimeModes.st,
        loop=Loops.uvloop,
        task_impl=TaskImpl.asyncio,
        # telling the two apart costs memory, and takes for ever where a client sends nothing
        http=HTTPModes.auto if _may_speak_http2(settings) else HTTPModes.http1,
        websockets=False,
        backlog=settings.listen,
        # the default, backlog divided by workers, lets slow clients keep everybody else out
        backpressure=_BACKPRESSURE,
        http1_settings=HTTP1Settings(
            header_read_timeout=max(1, round(settings.header_timeout * 1000)), max_buffer_size=131072
        ),
        log_enabled=True,
        log_level=LogLevels.debug if is_talkative else LogLevels.warning,
        log_dictconfig=logs.granian_logging(),
        ssl_cert=settings.tls_cert,
        ssl_key=settings.tls_key,
        ssl_protocol_min=SSLProtocols.tls12,
        workers_kill_timeout=DRAIN_SECONDS,
        respawn_failed_workers=True,
        **options,
    )


def _may_speak_http2(settings: Settings) -> bool:
    return settings.tls_cert is not None or settings.http2 == "always"


def load_application(
    settings: Settings, membership: "Membership | None", failure: Connection, lock: StoreLock
) -> "AsgiCallable":
    """Build the ASGI application of one worker. Where that fails, tell the supervisor why and wait for the end."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and supervisor.pid is not None:
        # a worker alone would serve a store without its lock
        die_with_parent(supervisor.pid)
    # a worker must not hold the store beyond the supervisor's life
    lock.leave_to_parent()
    # SIGTERM is blocked until the loop runs for requests: uvloop loses a signal that comes between two runs of it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        output = logs.configure(settings.log, settings.log_format, settings.log_file)
        access_log = logs.AccessLog(output, settings.log_format, settings.log)
        application = _build_when_possible(settings, membership, access_log)
        _collect_seldom()
    except Exception as error:
        _give_up(error, failure)
    # a forked process ends with these, and not with what is registered for the end of an interpreter
    Finalize(None, access_log.close, exitpriority=0)

    def serve_scope(scope: "Scope", receive: "Receive", send: "Send") -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return _live(application, scope, receive, send)
        return application(scope, receive, send)

    return serve_scope


async def _live(application: "AsgiCallable", scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Pass the lifespan on; let SIGTERM in as soon as the loop runs for requests."""

    async def send_and_listen(message: "Message") -> None:
        await send(message)
        if message["type"] == "lifespan.startup.complete":
            asyncio.get_running_loop().call_later(_SIGNAL_SECONDS, _unblock)

    await application(scope, receive, send_and_listen)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _collect_seldom() -> None:
    """Look for garbage in cycles less often: requests make none, and what is remembered is looked through each time."""
    give_memory_back()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _build_when_possible(
    settings: Settings, membership: "Membership | None", access_log: logs.AccessLog
) -> "AsgiCallable":
    """Put a worker together; wait for a catalogue that cannot be reached: it was reached when the daemon started."""
    while True:
        try:
            return _build(settings, membership, access_log)
        except CatalogueUnavailable as error:
            logger.error("this worker waits for the catalogue: {}", error.reason)
        # nothing else looks for the signal meanwhile
        if signal.sigtimedwait({signal.SIGTERM}, _WORKER_WAIT_SECONDS) is not None:
            os._exit(0)


def _build(settings: Settings, membership: "Membership | None", access_log: logs.AccessLog) -> "AsgiCallable":
    """Put the parts of a worker together: the only place that turns settings into objects."""
    from filestored.api.app import Application
    from filestored.api.connections import Connections
    from filestored.api.cors import Cors
    from filestored.api.elsewhere import Detours
    from filestored.api.limits import Limits
    from filestored.api.proxies import Proxies
    from filestored.filestore import Filestore

    filestore = Filestore(
        StoreFolder.adopt(settings.folder, settings.hash, settings.bucket),
        settings.catalogue_address,
        durable=settings.durability == "full",
        min_free_bytes=settings.min_free_space,
        upload_life=settings.upload_expiry,
        membership=membership,
    )
    limits = Limits(
        max_upload_size=settings.max_upload_size,
        max_uploads=settings.max_uploads,
        max_uploads_per_client=settings.max_uploads_per_client,
        body_timeout=settings.body_timeout,
        send_timeout=settings.send_timeout,
        buffer=settings.buffer,
        cache_control=settings.cache_control,
        certificate=settings.tls_cert,
    )
    proxies, cors = Proxies(settings.trusted_proxy), Cors(settings.cors_origin)
    detours = Detours(settings.redirect_downloads, settings.accel_redirect)
    try:
        access = Access(settings.anonymous, filestore.credentials()[0])
        # plain HTTP/1 has the server's own timeouts
        connections = (
            Connections(settings.header_timeout, settings.send_timeout) if _may_speak_http2(settings) else None
        )
        return Application(filestore, access, limits, access_log, proxies, cors, detours, connections)
    except CatalogueUnavailable:
        filestore.close()
        raise


def _give_up(error: Exception, failure: Connection) -> NoReturn:
    reason = str(error) if isinstance(error, FilestoredError | OSError) else f"{type(error).__name__}: {error}"
    logger.opt(exception=error).debug("this worker cannot start")
    failure.send(f"a worker cannot start: {reason}")
    _unblock()
    os.kill(os.getppid(), signal.SIGTERM)
    # ending by itself would have Granian start the worker once more
    while True:
        signal.pause()

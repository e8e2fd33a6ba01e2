"""The daemon: makes the parts, wires them, runs until told to stop. Only this knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import pwd
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import sterna
from sterna.errors import SternaError
from sterna.guest.autokill import Autokill
from sterna.guest.events import EventBus
from sterna.guest.launcher import QemuEmulators, QemuLauncher
from sterna.guest.recover import recover
from sterna.guest.registry import Registry
from sterna.guest.surroundings import GuestPaths, GuestSettings, Surroundings, Work
from sterna.host.identity import host_name, host_uuid, migration_address
from sterna.host.places import Places
from sterna.migration.service import Host, Migrations
from sterna.qemu.guardian import Guardian
from sterna.qemu.process import User
from sterna.rpc.tls import TlsFilesError
from sterna.server import handlers, sdnotify
from sterna.server import logging as daemon_log
from sterna.server.askers import Askers
from sterna.server.clients import Clients
from sterna.server.context import Context
from sterna.server.decisions import DecisionListener
from sterna.server.emulators import host_supports
from sterna.server.listeners import (
    Listener,
    ListenError,
    bind_tcp,
    bind_unix,
    is_loopback,
    refuse_unprotected,
)
from sterna.server.logging import event
from sterna.server.peers import HostPeers
from sterna.server.settings import Settings, SettingsError, octal, tcp_address
from sterna.server.tls import Certificates, TlsDoor
from sterna.store.db import SqliteStore
from sterna.store.ports import Store

log = logging.getLogger(__name__)

HOST_UUID_KEY = "host_uuid"
NAME_LOOKUP_S = 2.0
"""The resolver may take long to say that it does not know us; clients must not wait for that."""
SETTLE_S = 5.0
"""How long a stopping daemon waits for killed guests to be gone."""
RELOADABLE = frozenset(
    {
        "verbose",
        "keepalive_interval_s",
        "keepalive_count",
        "clients_max",
        "client_calls_max",
        "tls_allowed_dn",
    }
)
"""Settings that SIGHUP changes, for what happens from then on. The others need a restart."""

assert handlers.__all__  # noqa: S101 - imported for its registrations


class _Stopped(Exception):
    """Ends the scope of the daemon's work."""


class Daemon:
    """One daemon's life."""

    def __init__(
        self, settings: Settings, places: Places, *, reload: Callable[[], Settings]
    ) -> None:
        """`reload` reads the settings again, for SIGHUP."""
        self._settings = settings
        self._places = places
        self._reload = reload
        self._stop = asyncio.Event()
        self._context: Context | None = None
        self._certificates: Certificates | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit code.

        Raises:
            ListenError: a socket cannot be opened; in a group of one, once there are scopes.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._read_certificates()
        async with AsyncExitStack() as undo:
            guardian = Guardian(self._places.store)
            guardian.start()
            # After the store's: the guardian may have to read it, and it has one user at a time.
            undo.push_async_callback(guardian.close)
            store = await SqliteStore.open(self._places.store)
            undo.push_async_callback(store.close)
            try:
                async with asyncio.TaskGroup() as work:
                    context = self._context = await self._make_context(store, guardian, work)
                    await self._serve(context)
                    # What is under way is cut off and undoes itself; nobody is left to wait for it.
                    raise _Stopped
            except* _Stopped:
                pass
        event(log, "daemon.stopped")
        return 0

    async def _make_context(
        self, store: Store, guardian: Guardian, work: asyncio.TaskGroup
    ) -> Context:
        settings, places = self._settings, self._places
        user = qemu_user(settings)
        bus = EventBus()
        emulators = QemuEmulators(places.cache)
        guest_settings = GuestSettings(user=user)
        surroundings = Surroundings(
            paths=GuestPaths(places.qemu_run, places.qemu_log, places.nvram, places.save),
            settings=guest_settings,
            store=store,
            emulators=emulators,
            launcher=QemuLauncher(emulators, guest_settings, guardian),
            work=Work(work),
            bus=bus,
            autokill=Autokill(settings.peer_silence_s),
        )
        registry = Registry(surroundings)
        hostname = await own_name(settings)
        uuid = await own_uuid(store)
        host = Host(
            hostname,
            uuid,
            settings.migration_address,
            settings.migration_port_min,
            settings.migration_port_max,
            await own_address(settings, hostname),
            settings.peer_silence_s,
            settings.migration_tls_dir,
            settings.migration_tls_force,
        )
        door = DecisionListener(store, host, settings.decision_port)
        peers = HostPeers(hostname, uuid, door, pki=Path(settings.pki))
        return Context(
            settings=settings,
            places=places,
            hostname=hostname,
            host_uuid=uuid,
            is_system=os.geteuid() == 0,
            guest_ids=None if user is None else (user.uid, user.gid),
            emulators=emulators,
            store=store,
            bus=bus,
            registry=registry,
            migrations=Migrations(registry, host, peers),
            door=door,
        )

    async def _serve(self, context: Context) -> None:
        # Starting is recovering: guests are found again before anybody can ask for them.
        await context.migrations.go_on(await recover(context.registry))
        async with asyncio.TaskGroup() as connections:
            clients, askers = Clients(context, connections), Askers(context, connections)
            door = self._tls_door(clients, connections)
            listeners = self._listen(clients, door)
            await context.door.start(askers.accept, context.registry.surroundings.work)
            event(
                log,
                "daemon.ready",
                version=sterna.__version__,
                name=context.hostname,
                host_uuid=context.host_uuid,
                socket=self._places.socket,
            )
            self._begin_work(context)
            sdnotify.notify("READY=1", f"STATUS=serving {context.hostname}")
            self._feed_watchdog()
            await self._stop.wait()
            event(log, "daemon.stopping")
            sdnotify.notify("STOPPING=1")
            if self._watchdog is not None:
                self._watchdog.cancel()
            for listener in listeners:
                listener.close()
            context.door.close()
            askers.end_all("the daemon stops")
            if door is not None:
                door.end_all()
            clients.end_all("the daemon stops")
        await context.migrations.settle(SETTLE_S)
        await settled(context)
        context.registry.let_go()

    def _begin_work(self, context: Context) -> None:
        """What a start does beside serving: guests marked for it, and knowing the emulators."""
        work = context.registry.surroundings.work

        async def know_emulators() -> None:
            with contextlib.suppress(SternaError):  # whoever needs one will be told
                await host_supports(context.emulators)

        work.start(know_emulators())
        work.start(context.registry.autostart())

    def _feed_watchdog(self) -> None:
        """Tell the service manager that the loop still turns, as often as it wants."""
        interval_s = sdnotify.watchdog_interval_s()
        if interval_s is not None:
            sdnotify.notify("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            self._watchdog = loop.call_later(interval_s, self._feed_watchdog)

    def _on_hangup(self) -> None:
        """SIGHUP: read the settings again."""
        if self._context is None:
            return
        sdnotify.notify("RELOADING=1")
        try:
            fresh = self._reload()
        except SettingsError as error:
            event(log, "daemon.reload_refused", logging.ERROR, error=error)
        else:
            self._context.settings = reloaded(self._context.settings, fresh)
            daemon_log.set_level(verbose=fresh.verbose)
            event(log, "daemon.reloaded")
        if self._certificates is not None:
            self._certificates.reload()
        sdnotify.notify("READY=1")

    # -- sockets

    def _read_certificates(self) -> None:
        """For TLS, if it is to be served. ListenError if they cannot be used."""
        if self._settings.tls is not None:
            try:
                self._certificates = Certificates(
                    Path(self._settings.pki),
                    demand=self._settings.tls_client_certificate == "required",
                )
            except TlsFilesError as error:
                raise ListenError(f"cannot serve TLS: {error}") from error

    def _tls_door(self, clients: Clients, tasks: asyncio.TaskGroup) -> TlsDoor | None:
        """Where clients over TLS come in, if they may."""
        context = self._context
        if self._certificates is None or context is None:
            return None
        return TlsDoor(
            self._certificates, clients.accept, lambda: context.settings.tls_allowed_dn, tasks
        )

    def _listen(self, clients: Clients, door: TlsDoor | None) -> list[Listener]:
        listeners: list[Listener] = []
        try:
            passed = sdnotify.listen_fds()
            listeners += [passed_listener(fd, clients, self._settings) for fd in passed]
            if not passed:
                listeners += self._unix_listeners(clients)
            if self._settings.tcp is not None:
                listeners += tcp_listeners(self._settings.tcp, clients, self._settings)
            if self._settings.tls is not None and door is not None:
                listeners += tls_listeners(self._settings.tls, door)
        except ListenError:
            for listener in listeners:
                listener.close()
            raise
        return listeners

    def _unix_listeners(self, clients: Clients) -> list[Listener]:
        settings = self._settings
        made = []
        for path, mode, read_only in (
            (self._places.socket, settings.socket_mode, False),
            (self._places.socket_read_only, settings.socket_read_only_mode, True),
        ):
            listener = Listener(
                bind_unix(path, mode=octal(mode, str(path)), group=settings.socket_group),
                clients.accept,
                read_only=read_only,
                name=str(path),
            )
            listener.remove_at_close(path)
            made.append(listener)
        return made


async def settled(context: Context) -> None:
    """Wait until the guests that died with their connections are cleaned up. The others run on."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_S):
            for guest in context.registry.all():
                if guest.running is not None and guest.running.ending is not None:
                    await guest.running.stopped.wait()


def reloaded(old: Settings, fresh: Settings) -> Settings:
    """The old settings with what may change while running; the rest is named in the log."""
    changed = {}
    for name in Settings.__dataclass_fields__:
        before, after = getattr(old, name), getattr(fresh, name)
        if before == after:
            continue
        if name in RELOADABLE:
            changed[name] = after
        else:
            event(log, "daemon.setting_needs_restart", logging.WARNING, setting=name)
    return Settings(**{n: changed.get(n, getattr(old, n)) for n in Settings.__dataclass_fields__})


def passed_listener(fd: int, clients: Clients, settings: Settings) -> Listener:
    """A socket the service manager opened. Its name says what may be done there.

    Raises:
        ListenError: it is plain TCP for other machines, which nobody has allowed.
    """
    sock = socket.socket(fileno=fd)
    if sock.family != socket.AF_UNIX and not settings.allow_unprotected_tcp:
        refuse_unprotected(str(sock.getsockname()[0]))
    name = str(sock.getsockname())
    return Listener(
        sock, clients.accept, read_only=Path(name).name.endswith("-ro"), name=f"passed {name}"
    )


def tcp_listeners(text: str, clients: Clients, settings: Settings) -> list[Listener]:
    """Listen where the setting says; loudly, unless only this machine can come in.

    Raises:
        ListenError: it cannot be, or may not.
    """
    host, port = tcp_address(text)
    made = []
    for sock in bind_tcp(host, port, loopback_only=not settings.allow_unprotected_tcp):
        address, bound_port = sock.getsockname()[:2]
        if not is_loopback(address):
            event(
                log,
                "listener.unprotected",
                logging.WARNING,
                address=address,
                port=bound_port,
                meaning="no TLS and no authentication: whoever reaches this port rules the host",
            )
        event(log, "listener.tcp", address=address, port=bound_port)
        made.append(
            Listener(sock, clients.accept, read_only=False, name=f"tcp {address}:{bound_port}")
        )
    return made


def tls_listeners(text: str, door: TlsDoor) -> list[Listener]:
    """Listen for TLS where the setting says.

    Raises:
        ListenError: it cannot be.
    """
    made = []
    for sock in bind_tcp(*tcp_address(text)):
        address, port = sock.getsockname()[:2]
        event(log, "listener.tls", address=address, port=port)
        made.append(Listener(sock, door.accept, read_only=False, name=f"tls {address}:{port}"))
    return made


async def own_name(settings: Settings) -> str:
    """The host's name: as set, else the machine's, completed if that can be had soon."""
    if settings.name is not None:
        return settings.name
    try:
        async with asyncio.timeout(NAME_LOOKUP_S):
            return await asyncio.to_thread(host_name)
    except TimeoutError:
        return socket.gethostname()


async def own_address(settings: Settings, name: str) -> str:
    """Where other hosts reach this one: as set, else by its name, else by an address of its."""
    try:
        async with asyncio.timeout(NAME_LOOKUP_S):
            return await asyncio.to_thread(migration_address, settings.migration_address, name)
    except TimeoutError:
        return name


async def own_uuid(store: Store) -> UUID:
    """The host's uuid, made at the first start and kept."""
    stored = (await store.meta()).get(HOST_UUID_KEY)
    uuid = host_uuid(stored)
    if stored is None:
        await store.set_meta(HOST_UUID_KEY, str(uuid))
    return uuid


def qemu_user(settings: Settings) -> User | None:
    """Whom QEMU runs as; None for the daemon's own user.

    Raises:
        ListenError: there is no such user or group, or only root could become it.
    """
    if not settings.qemu_user:
        return None
    if os.geteuid() != 0:
        raise ListenError("qemu_user is set, but only root can run QEMU as somebody else")
    try:
        found = pwd.getpwnam(settings.qemu_user)
        gid = grp.getgrnam(settings.qemu_group).gr_gid if settings.qemu_group else found.pw_gid
    except KeyError as error:
        raise ListenError(f"qemu_user or qemu_group is not known here: {error}") from error
    groups = tuple(os.getgrouplist(settings.qemu_user, gid))
    return User(found.pw_uid, gid, groups)

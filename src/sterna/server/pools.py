"""The host's storage pools: directories of images, and no other kind.

virt-install and virt-manager take a path only inside a pool and make one for its directory; so a
host without any would refuse every image (observed with 4.1).
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from sterna.config.document import parse_xml
from sterna.errors import (
    ConfigUnsupported,
    ErrorDomain,
    NoStoragePool,
    NoStorageVol,
    OperationFailed,
    OperationInvalid,
    SystemCallError,
    XmlError,
)
from sterna.host.volumes import Volume, look, pool_xml, scan
from sterna.store.ports import Store

KEY: Final = "storage_pools"
POOLS_MAX: Final = 1024
STORAGE: Final = ErrorDomain.STORAGE


@dataclass(frozen=True, slots=True)
class Pool:
    """One directory. `persistent` ones are kept in the store."""

    name: str
    uuid: str
    path: str
    active: bool = False
    autostart: bool = False
    persistent: bool = True

    @property
    def directory(self) -> Path:
        return Path(self.path)


class Pools:
    """Every pool, by name; changed by one call at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pools: dict[str, Pool] | None = None
        self._changing = asyncio.Lock()

    async def all(self) -> list[Pool]:
        """By name. Those that start with the host are active from the first look at them."""
        async with self._changing:
            return sorted((await self._loaded()).values(), key=lambda pool: pool.name)

    async def by_name(self, name: str) -> Pool:
        """Raises: NoStoragePool."""
        found = [pool for pool in await self.all() if pool.name == name]
        if not found:
            raise NoStoragePool(f"no storage pool with matching name '{name}'")
        return found[0]

    async def by_uuid(self, uuid: UUID, name: str | None = None) -> Pool:
        """`name` is what the client believes, for the text. Raises: NoStoragePool."""
        found = [pool for pool in await self.all() if pool.uuid == str(uuid)]
        if not found:
            known = f" ({name})" if name is not None else ""
            raise NoStoragePool(f"no storage pool with matching uuid '{uuid}'{known}")
        return found[0]

    async def by_path(self, path: str) -> Pool:
        """The pool of a directory. Raises: NoStoragePool."""
        found = [pool for pool in await self.all() if pool.path == normal(path)]
        if not found:
            raise NoStoragePool(f"no storage pool with matching target path '{path}'")
        return found[0]

    async def define(self, xml: str, *, active: bool = False) -> Pool:
        """A persistent pool; with `active` a transient one that runs at once.

        Raises: XmlError, ConfigUnsupported, OperationFailed (9): name, uuid or directory is
        another's; SystemCallError.
        """
        new = read_pool(xml)
        if active:
            new = replace(new, active=True, persistent=False)
            await _check_directory(Path(new.path))
        async with self._changing:
            pools = await self._loaded()
            for known in pools.values():
                _refuse_conflict(new, known)
            before = pools.get(new.name)
            if before is not None:
                new = replace(new, active=before.active, autostart=before.autostart)
            elif len(pools) >= POOLS_MAX:
                raise OperationFailed(f"more than {POOLS_MAX} storage pools", domain=STORAGE)
            await self._put(new)
        return new

    async def build(self, pool: Pool) -> None:
        """Make its directory. Raises: SystemCallError."""

        def make() -> None:
            Path(pool.path).mkdir(mode=0o711, parents=True, exist_ok=True)

        try:
            await asyncio.to_thread(make)
        except OSError as exc:
            raise SystemCallError(
                f"cannot create path '{pool.path}'", errno=exc.errno or 0, domain=STORAGE
            ) from exc

    async def start(self, pool: Pool) -> None:
        """Raises: OperationInvalid (55) if it is active; SystemCallError."""
        if pool.active:
            raise OperationInvalid(f"storage pool '{pool.name}' is already active", domain=STORAGE)
        await _check_directory(Path(pool.path))
        await self.change(pool, active=True)

    async def stop(self, pool: Pool) -> None:
        """A transient one is gone then. Raises: OperationInvalid (55)."""
        check_active(pool)
        if pool.persistent:
            await self.change(pool, active=False)
        else:
            await self.change(pool, forget=True)

    async def undefine(self, pool: Pool) -> None:
        """Raises: OperationInvalid (55) while it is active."""
        if pool.active:
            raise OperationInvalid(f"storage pool '{pool.name}' is still active", domain=STORAGE)
        await self.change(pool, forget=True)

    async def change(self, pool: Pool, *, forget: bool = False, **values: Any) -> None:
        """Replace fields of a pool, or forget it."""
        async with self._changing:
            await self._loaded()
            await self._put(replace(pool, **values), forget=forget)

    async def _loaded(self) -> dict[str, Pool]:
        if self._pools is None:
            kept = json.loads((await self._store.meta()).get(KEY, "[]"))
            pools = [Pool(**item) for item in kept]
            self._pools = {pool.name: replace(pool, active=pool.autostart) for pool in pools}
        return self._pools

    async def _put(self, pool: Pool, *, forget: bool = False) -> None:
        """On disk first, then in memory."""
        pools = dict(self._pools or {})
        pools.pop(pool.name, None)
        if not forget:
            pools[pool.name] = pool
        kept = [asdict(one) for one in pools.values() if one.persistent]
        await self._store.set_meta(KEY, json.dumps(kept))
        self._pools = pools


def normal(path: str) -> str:
    """A path without `..`, doubled and trailing slashes."""
    return os.path.normpath(path)


def read_pool(xml: str) -> Pool:
    """A pool from its XML. Raises: XmlDetail, XmlError, ConfigUnsupported."""
    root = parse_xml(xml, "storage_pool_definition")
    if root.tag != "pool":
        raise XmlError(f"unexpected root element <{root.tag}>, expecting <pool>", domain=STORAGE)
    kind = root.get("type")
    if kind is None:
        raise XmlError("Missing required attribute 'type' in element 'pool'", domain=STORAGE)
    if kind != "dir":
        raise ConfigUnsupported(f"storage pools of type '{kind}' are not supported")
    name, path = root.findtext("name") or "", root.findtext("target/path") or ""
    if not path.startswith("/"):
        raise XmlError("missing storage pool target path", domain=STORAGE)
    name = name or os.path.basename(normal(path))
    if not name or "/" in name or "\n" in name:
        raise XmlError(f"invalid storage pool name {name!r}", domain=STORAGE)
    try:
        uuid = UUID(root.findtext("uuid")) if root.findtext("uuid") else uuid4()
    except ValueError:
        raise XmlError("malformed uuid element", domain=STORAGE) from None
    return Pool(name, str(uuid), normal(path))


def _refuse_conflict(new: Pool, known: Pool) -> None:
    if new.name == known.name and (new.uuid != known.uuid or not new.persistent):
        raise OperationFailed(
            f"pool '{new.name}' already exists with uuid {known.uuid}", domain=STORAGE
        )
    if new.name != known.name and new.uuid == known.uuid:
        raise OperationFailed(
            f"pool '{known.name}' is already defined with uuid {known.uuid}", domain=STORAGE
        )
    if new.name != known.name and new.path == known.path:
        raise OperationFailed(f"Storage source conflict with pool: '{known.name}'", domain=STORAGE)


def check_active(pool: Pool) -> None:
    """Raises: OperationInvalid (55)."""
    if not pool.active:
        raise OperationInvalid(f"storage pool '{pool.name}' is not active", domain=STORAGE)


async def _check_directory(path: Path) -> None:
    def check() -> None:
        with os.scandir(path):
            pass

    try:
        await asyncio.to_thread(check)
    except OSError as exc:
        raise SystemCallError(
            f"cannot open directory '{path}'", errno=exc.errno or 0, domain=STORAGE
        ) from exc


async def describe(pool: Pool) -> str:
    """The pool's XML. Raises: SystemCallError."""
    try:
        return await asyncio.to_thread(
            pool_xml, pool.name, pool.uuid, Path(pool.path), active=pool.active
        )
    except OSError as exc:
        raise SystemCallError(
            f"cannot stat '{pool.path}'", errno=exc.errno or 0, domain=STORAGE
        ) from exc


async def volumes(pool: Pool) -> list[Volume]:
    """Raises: OperationInvalid (55) if it isn't active; SystemCallError."""
    check_active(pool)
    try:
        return await asyncio.to_thread(scan, Path(pool.path))
    except OSError as exc:
        raise SystemCallError(
            f"cannot open directory '{pool.path}'", errno=exc.errno or 0, domain=STORAGE
        ) from exc


async def volume(pool: Pool, name: str) -> Volume:
    """Raises: NoStorageVol; OperationInvalid (55) if the pool isn't active."""
    check_active(pool)
    found = None
    if name and "/" not in name and name not in (".", ".."):
        try:
            found = await asyncio.to_thread(look, Path(pool.path) / name)
        except OSError:
            found = None
    if found is None:
        raise NoStorageVol(f"no storage vol with matching name '{name}'")
    return found

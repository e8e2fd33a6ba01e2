"""Storage pools that are directories, and the images in them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from uuid import UUID

from sterna.errors import NoStoragePool, NoStorageVol
from sterna.host.volumes import Volume, space, volume_xml
from sterna.rpc import msg_storage as m
from sterna.rpc.msg_common import Pool as WirePool
from sterna.rpc.msg_common import Vol
from sterna.server import newvolumes, pools
from sterna.server.dispatch import check_flags, handles
from sterna.server.pools import Pool
from sterna.server.session import Session

INACTIVE, ACTIVE, PERSISTENT, TRANSIENT, AUTOSTART, NO_AUTOSTART, DIR = (1 << n for n in range(7))
TYPES = (1 << 19) - DIR
"""Every kind of pool that can be asked for."""
STATE_INACTIVE, STATE_RUNNING = 0, 2
CREATE_METADATA, CREATE_REFLINK = 1, 2
"""The second is a wish: without it, and with it, the copy is a plain one."""


def encode_pool(pool: Pool) -> WirePool:
    return WirePool(pool.name, UUID(pool.uuid).bytes)


def encode_volume(pool: Pool, volume: Volume) -> Vol:
    return Vol(pool.name, volume.name, volume.path)


async def find(session: Session, wire: WirePool) -> Pool:
    """Raises: NoStoragePool."""
    return await session.context.pools.by_uuid(UUID(bytes=wire.uuid), wire.name)


async def find_volume(session: Session, wire: Vol) -> Volume:
    """Raises: NoStoragePool, NoStorageVol, OperationInvalid."""
    return await pools.volume(await session.context.pools.by_name(wire.pool), wire.name)


# -- which there are -------------------------------------------------------------------------------


def chosen(pool: Pool, flags: int) -> bool:
    """Whether a pool is among those a client's filter asks for; of a group without a bit, all."""
    groups = (
        ((INACTIVE, not pool.active), (ACTIVE, pool.active)),
        ((PERSISTENT, pool.persistent), (TRANSIENT, not pool.persistent)),
        ((AUTOSTART, pool.autostart), (NO_AUTOSTART, not pool.autostart)),
        ((DIR, True), (TYPES & ~DIR, False)),
    )
    return all(
        any(holds and flags & bit for bit, holds in group)
        for group in groups
        if any(flags & bit for bit, _ in group)
    )


@handles("CONNECT_LIST_ALL_STORAGE_POOLS")
async def connect_list_all_storage_pools(
    session: Session, args: m.ConnectListAllStoragePoolsArgs
) -> m.ConnectListAllStoragePoolsRet:
    check_flags(args.flags, DIR - 1 | TYPES, "storageConnectListAllStoragePools")
    found = [p for p in await session.context.pools.all() if chosen(p, args.flags)]
    shown = [encode_pool(pool) for pool in found] if args.need_results else []
    return m.ConnectListAllStoragePoolsRet(pools=shown, ret=len(found))


async def names(session: Session, *, active: bool) -> list[str]:
    return [pool.name for pool in await session.context.pools.all() if pool.active is active]


@handles("CONNECT_NUM_OF_STORAGE_POOLS")
async def num_of_pools(session: Session, args: None) -> m.ConnectNumOfStoragePoolsRet:
    return m.ConnectNumOfStoragePoolsRet(num=len(await names(session, active=True)))


@handles("CONNECT_NUM_OF_DEFINED_STORAGE_POOLS")
async def num_of_defined(session: Session, args: None) -> m.ConnectNumOfDefinedStoragePoolsRet:
    return m.ConnectNumOfDefinedStoragePoolsRet(num=len(await names(session, active=False)))


@handles("CONNECT_LIST_STORAGE_POOLS")
async def list_pools(
    session: Session, args: m.ConnectListStoragePoolsArgs
) -> m.ConnectListStoragePoolsRet:
    found = await names(session, active=True)
    return m.ConnectListStoragePoolsRet(names=found[: max(0, args.maxnames)])


@handles("CONNECT_LIST_DEFINED_STORAGE_POOLS")
async def list_defined(
    session: Session, args: m.ConnectListDefinedStoragePoolsArgs
) -> m.ConnectListDefinedStoragePoolsRet:
    found = await names(session, active=False)
    return m.ConnectListDefinedStoragePoolsRet(names=found[: max(0, args.maxnames)])


@handles("STORAGE_POOL_LOOKUP_BY_NAME")
async def lookup_by_name(
    session: Session, args: m.StoragePoolLookupByNameArgs
) -> m.StoragePoolLookupByNameRet:
    found = await session.context.pools.by_name(args.name)
    return m.StoragePoolLookupByNameRet(pool=encode_pool(found))


@handles("STORAGE_POOL_LOOKUP_BY_UUID")
async def lookup_by_uuid(
    session: Session, args: m.StoragePoolLookupByUuidArgs
) -> m.StoragePoolLookupByUuidRet:
    found = await session.context.pools.by_uuid(UUID(bytes=args.uuid))
    return m.StoragePoolLookupByUuidRet(pool=encode_pool(found))


@handles("STORAGE_POOL_LOOKUP_BY_VOLUME")
async def lookup_by_volume(
    session: Session, args: m.StoragePoolLookupByVolumeArgs
) -> m.StoragePoolLookupByVolumeRet:
    found = await session.context.pools.by_name(args.vol.pool)
    return m.StoragePoolLookupByVolumeRet(pool=encode_pool(found))


@handles("STORAGE_POOL_LOOKUP_BY_TARGET_PATH")
async def lookup_by_target_path(
    session: Session, args: m.StoragePoolLookupByTargetPathArgs
) -> m.StoragePoolLookupByTargetPathRet:
    found = await session.context.pools.by_path(args.path)
    return m.StoragePoolLookupByTargetPathRet(pool=encode_pool(found))


# -- their lives -----------------------------------------------------------------------------------


@handles("STORAGE_POOL_DEFINE_XML")
async def pool_define(
    session: Session, args: m.StoragePoolDefineXmlArgs
) -> m.StoragePoolDefineXmlRet:
    check_flags(args.flags, 0, "storagePoolDefineXML")
    made = await session.context.pools.define(args.xml)
    return m.StoragePoolDefineXmlRet(pool=encode_pool(made))


@handles("STORAGE_POOL_CREATE_XML")
async def pool_create_xml(
    session: Session, args: m.StoragePoolCreateXmlArgs
) -> m.StoragePoolCreateXmlRet:
    check_flags(args.flags, 0, "storagePoolCreateXML")
    made = await session.context.pools.define(args.xml, active=True)
    return m.StoragePoolCreateXmlRet(pool=encode_pool(made))


@handles("STORAGE_POOL_BUILD")
async def pool_build(session: Session, args: m.StoragePoolBuildArgs) -> None:
    check_flags(args.flags, 0, "storagePoolBuild")
    await session.context.pools.build(await find(session, args.pool))


@handles("STORAGE_POOL_CREATE")
async def pool_create(session: Session, args: m.StoragePoolCreateArgs) -> None:
    check_flags(args.flags, 0, "storagePoolCreate")
    await session.context.pools.start(await find(session, args.pool))


@handles("STORAGE_POOL_DESTROY")
async def pool_destroy(session: Session, args: m.StoragePoolDestroyArgs) -> None:
    await session.context.pools.stop(await find(session, args.pool))


@handles("STORAGE_POOL_UNDEFINE")
async def pool_undefine(session: Session, args: m.StoragePoolUndefineArgs) -> None:
    await session.context.pools.undefine(await find(session, args.pool))


@handles("STORAGE_POOL_REFRESH")
async def pool_refresh(session: Session, args: m.StoragePoolRefreshArgs) -> None:
    """Every look at a pool is a fresh one; so only whether it could be looked at is told."""
    check_flags(args.flags, 0, "storagePoolRefresh")
    await pools.volumes(await find(session, args.pool))


@handles("STORAGE_POOL_SET_AUTOSTART")
async def pool_set_autostart(session: Session, args: m.StoragePoolSetAutostartArgs) -> None:
    pool = await find(session, args.pool)
    await session.context.pools.change(pool, autostart=bool(args.autostart))


@handles("STORAGE_POOL_GET_AUTOSTART")
async def pool_get_autostart(
    session: Session, args: m.StoragePoolGetAutostartArgs
) -> m.StoragePoolGetAutostartRet:
    return m.StoragePoolGetAutostartRet(autostart=(await find(session, args.pool)).autostart)


@handles("STORAGE_POOL_IS_ACTIVE")
async def pool_is_active(
    session: Session, args: m.StoragePoolIsActiveArgs
) -> m.StoragePoolIsActiveRet:
    return m.StoragePoolIsActiveRet(active=(await find(session, args.pool)).active)


@handles("STORAGE_POOL_IS_PERSISTENT")
async def pool_is_persistent(
    session: Session, args: m.StoragePoolIsPersistentArgs
) -> m.StoragePoolIsPersistentRet:
    return m.StoragePoolIsPersistentRet(persistent=(await find(session, args.pool)).persistent)


@handles("STORAGE_POOL_GET_INFO")
async def pool_get_info(
    session: Session, args: m.StoragePoolGetInfoArgs
) -> m.StoragePoolGetInfoRet:
    pool = await find(session, args.pool)
    sizes = (0, 0, 0)
    if pool.active:
        # A directory that went has no sizes; the pool's state is true all the same.
        with contextlib.suppress(OSError):
            sizes = await asyncio.to_thread(space, pool.directory)
    state = STATE_RUNNING if pool.active else STATE_INACTIVE
    capacity, allocation, available = sizes
    return m.StoragePoolGetInfoRet(
        state=state, capacity=capacity, allocation=allocation, available=available
    )


@handles("STORAGE_POOL_GET_XML_DESC")
async def pool_get_xml_desc(
    session: Session, args: m.StoragePoolGetXmlDescArgs
) -> m.StoragePoolGetXmlDescRet:
    check_flags(args.flags, 1, "storagePoolGetXMLDesc")
    return m.StoragePoolGetXmlDescRet(xml=await pools.describe(await find(session, args.pool)))


# -- volumes ---------------------------------------------------------------------------------------


@handles("STORAGE_POOL_NUM_OF_VOLUMES")
async def pool_num_of_volumes(
    session: Session, args: m.StoragePoolNumOfVolumesArgs
) -> m.StoragePoolNumOfVolumesRet:
    found = await pools.volumes(await find(session, args.pool))
    return m.StoragePoolNumOfVolumesRet(num=len(found))


@handles("STORAGE_POOL_LIST_VOLUMES")
async def pool_list_volumes(
    session: Session, args: m.StoragePoolListVolumesArgs
) -> m.StoragePoolListVolumesRet:
    found = await pools.volumes(await find(session, args.pool))
    shown = [volume.name for volume in found[: max(0, args.maxnames)]]
    return m.StoragePoolListVolumesRet(names=shown)


@handles("STORAGE_POOL_LIST_ALL_VOLUMES")
async def pool_list_all_volumes(
    session: Session, args: m.StoragePoolListAllVolumesArgs
) -> m.StoragePoolListAllVolumesRet:
    check_flags(args.flags, 0, "storagePoolListAllVolumes")
    pool = await find(session, args.pool)
    found = await pools.volumes(pool)
    shown = [encode_volume(pool, volume) for volume in found] if args.need_results else []
    return m.StoragePoolListAllVolumesRet(vols=shown, ret=len(found))


@handles("STORAGE_VOL_LOOKUP_BY_NAME")
async def vol_lookup_by_name(
    session: Session, args: m.StorageVolLookupByNameArgs
) -> m.StorageVolLookupByNameRet:
    pool = await find(session, args.pool)
    return m.StorageVolLookupByNameRet(vol=encode_volume(pool, await pools.volume(pool, args.name)))


async def at_path(session: Session, path: str) -> Vol | None:
    """The volume of a path, if its directory is an active pool."""
    directory, name = os.path.split(path)
    with contextlib.suppress(NoStoragePool, NoStorageVol):
        pool = await session.context.pools.by_path(directory or "/")
        if pool.active:
            return encode_volume(pool, await pools.volume(pool, name))
    return None


@handles("STORAGE_VOL_LOOKUP_BY_KEY")
async def vol_lookup_by_key(
    session: Session, args: m.StorageVolLookupByKeyArgs
) -> m.StorageVolLookupByKeyRet:
    """The key of a volume here is its path."""
    found = await at_path(session, args.key)
    if found is None:
        raise NoStorageVol(f"no storage vol with matching key {args.key}")
    return m.StorageVolLookupByKeyRet(vol=found)


@handles("STORAGE_VOL_LOOKUP_BY_PATH")
async def vol_lookup_by_path(
    session: Session, args: m.StorageVolLookupByPathArgs
) -> m.StorageVolLookupByPathRet:
    found = await at_path(session, args.path)
    if found is None:
        raise NoStorageVol(f"no storage vol with matching path '{args.path}'")
    return m.StorageVolLookupByPathRet(vol=found)


@handles("STORAGE_VOL_GET_INFO")
async def vol_get_info(session: Session, args: m.StorageVolGetInfoArgs) -> m.StorageVolGetInfoRet:
    found = await find_volume(session, args.vol)
    return m.StorageVolGetInfoRet(
        type=found.kind, capacity=found.capacity, allocation=found.allocation
    )


@handles("STORAGE_VOL_GET_INFO_FLAGS")
async def vol_get_info_flags(
    session: Session, args: m.StorageVolGetInfoFlagsArgs
) -> m.StorageVolGetInfoFlagsRet:
    """With flag 1 the file's size instead of the bytes it takes."""
    check_flags(args.flags, 1, "storageVolGetInfoFlags")
    found = await find_volume(session, args.vol)
    allocation = found.physical if args.flags & 1 else found.allocation
    return m.StorageVolGetInfoFlagsRet(
        type=found.kind, capacity=found.capacity, allocation=allocation
    )


@handles("STORAGE_VOL_GET_XML_DESC")
async def vol_get_xml_desc(
    session: Session, args: m.StorageVolGetXmlDescArgs
) -> m.StorageVolGetXmlDescRet:
    check_flags(args.flags, 0, "storageVolGetXMLDesc")
    return m.StorageVolGetXmlDescRet(xml=volume_xml(await find_volume(session, args.vol)))


@handles("STORAGE_VOL_GET_PATH")
async def vol_get_path(session: Session, args: m.StorageVolGetPathArgs) -> m.StorageVolGetPathRet:
    return m.StorageVolGetPathRet(name=(await find_volume(session, args.vol)).path)


@handles("STORAGE_VOL_CREATE_XML")
async def vol_create_xml(
    session: Session, args: m.StorageVolCreateXmlArgs
) -> m.StorageVolCreateXmlRet:
    check_flags(args.flags, CREATE_METADATA, "storageVolCreateXML")
    pool = await find(session, args.pool)
    wanted = newvolumes.read_volume(args.xml)
    made = await newvolumes.create(pool, wanted, metadata=bool(args.flags & CREATE_METADATA))
    return m.StorageVolCreateXmlRet(vol=encode_volume(pool, made))


@handles("STORAGE_VOL_CREATE_XML_FROM")
async def vol_create_xml_from(
    session: Session, args: m.StorageVolCreateXmlFromArgs
) -> m.StorageVolCreateXmlFromRet:
    check_flags(args.flags, CREATE_METADATA | CREATE_REFLINK, "storageVolCreateXMLFrom")
    pool = await find(session, args.pool)
    source = await find_volume(session, args.clonevol)
    made = await newvolumes.copy(pool, newvolumes.read_volume(args.xml), source)
    return m.StorageVolCreateXmlFromRet(vol=encode_volume(pool, made))


@handles("STORAGE_VOL_DELETE")
async def vol_delete(session: Session, args: m.StorageVolDeleteArgs) -> None:
    check_flags(args.flags, 0, "storageVolDelete")
    await newvolumes.delete(await find_volume(session, args.vol))

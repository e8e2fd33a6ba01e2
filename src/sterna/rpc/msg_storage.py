"""Messages about storage pools and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Pool, Vol
from sterna.xdr.message import Message
from sterna.xdr.wire import I8, I32, U8, U32, U64, Max, Str, Uuid


class ConnectNumOfStoragePoolsRet(Message):
    num: I32


class ConnectListStoragePoolsArgs(Message):
    maxnames: I32


class ConnectListStoragePoolsRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class ConnectNumOfDefinedStoragePoolsRet(Message):
    num: I32


class ConnectListDefinedStoragePoolsArgs(Message):
    maxnames: I32


class ConnectListDefinedStoragePoolsRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class ConnectFindStoragePoolSourcesArgs(Message):
    type: Str
    srcSpec: Str | None
    flags: U32


class ConnectFindStoragePoolSourcesRet(Message):
    xml: Str


class StoragePoolCreateXmlArgs(Message):
    xml: Str
    flags: U32


class StoragePoolCreateXmlRet(Message):
    pool: Pool


class StoragePoolDefineXmlArgs(Message):
    xml: Str
    flags: U32


class StoragePoolDefineXmlRet(Message):
    pool: Pool


class StoragePoolCreateArgs(Message):
    pool: Pool
    flags: U32


class StoragePoolBuildArgs(Message):
    pool: Pool
    flags: U32


class StoragePoolDestroyArgs(Message):
    pool: Pool


class StoragePoolDeleteArgs(Message):
    pool: Pool
    flags: U32


class StoragePoolUndefineArgs(Message):
    pool: Pool


class StoragePoolRefreshArgs(Message):
    pool: Pool
    flags: U32


class StoragePoolLookupByNameArgs(Message):
    name: Str


class StoragePoolLookupByNameRet(Message):
    pool: Pool


class StoragePoolLookupByUuidArgs(Message):
    uuid: Uuid


class StoragePoolLookupByUuidRet(Message):
    pool: Pool


class StoragePoolLookupByVolumeArgs(Message):
    vol: Vol


class StoragePoolLookupByVolumeRet(Message):
    pool: Pool


class StoragePoolGetInfoArgs(Message):
    pool: Pool


class StoragePoolGetInfoRet(Message):
    state: U8
    capacity: U64
    allocation: U64
    available: U64


class StoragePoolGetXmlDescArgs(Message):
    pool: Pool
    flags: U32


class StoragePoolGetXmlDescRet(Message):
    xml: Str


class StoragePoolGetAutostartArgs(Message):
    pool: Pool


class StoragePoolGetAutostartRet(Message):
    autostart: I32


class StoragePoolSetAutostartArgs(Message):
    pool: Pool
    autostart: I32


class StoragePoolNumOfVolumesArgs(Message):
    pool: Pool


class StoragePoolNumOfVolumesRet(Message):
    num: I32


class StoragePoolListVolumesArgs(Message):
    pool: Pool
    maxnames: I32


class StoragePoolListVolumesRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class StorageVolCreateXmlArgs(Message):
    pool: Pool
    xml: Str
    flags: U32


class StorageVolCreateXmlRet(Message):
    vol: Vol


class StorageVolDeleteArgs(Message):
    vol: Vol
    flags: U32


class StorageVolLookupByNameArgs(Message):
    pool: Pool
    name: Str


class StorageVolLookupByNameRet(Message):
    vol: Vol


class StorageVolLookupByKeyArgs(Message):
    key: Str


class StorageVolLookupByKeyRet(Message):
    vol: Vol


class StorageVolLookupByPathArgs(Message):
    path: Str


class StorageVolLookupByPathRet(Message):
    vol: Vol


class StorageVolGetInfoArgs(Message):
    vol: Vol


class StorageVolGetInfoRet(Message):
    type: I8
    capacity: U64
    allocation: U64


class StorageVolGetXmlDescArgs(Message):
    vol: Vol
    flags: U32


class StorageVolGetXmlDescRet(Message):
    xml: Str


class StorageVolGetPathArgs(Message):
    vol: Vol


class StorageVolGetPathRet(Message):
    name: Str


class StorageVolCreateXmlFromArgs(Message):
    pool: Pool
    xml: Str
    clonevol: Vol
    flags: U32


class StorageVolCreateXmlFromRet(Message):
    vol: Vol


class StoragePoolIsActiveArgs(Message):
    pool: Pool


class StoragePoolIsActiveRet(Message):
    active: I32


class StoragePoolIsPersistentArgs(Message):
    pool: Pool


class StoragePoolIsPersistentRet(Message):
    persistent: I32


class StorageVolWipeArgs(Message):
    vol: Vol
    flags: U32


class StorageVolUploadArgs(Message):
    vol: Vol
    offset: U64
    length: U64
    flags: U32


class StorageVolDownloadArgs(Message):
    vol: Vol
    offset: U64
    length: U64
    flags: U32


class StorageVolWipePatternArgs(Message):
    vol: Vol
    algorithm: U32
    flags: U32


class StorageVolResizeArgs(Message):
    vol: Vol
    capacity: U64
    flags: U32


class ConnectListAllStoragePoolsArgs(Message):
    need_results: I32
    flags: U32


class ConnectListAllStoragePoolsRet(Message):
    pools: Annotated[Sequence[Pool], Max(16_384)]
    ret: U32


class StoragePoolListAllVolumesArgs(Message):
    pool: Pool
    need_results: I32
    flags: U32


class StoragePoolListAllVolumesRet(Message):
    vols: Annotated[Sequence[Vol], Max(16_384)]
    ret: U32


class StorageVolGetInfoFlagsArgs(Message):
    vol: Vol
    flags: U32


class StorageVolGetInfoFlagsRet(Message):
    type: I8
    capacity: U64
    allocation: U64


class StoragePoolLookupByTargetPathArgs(Message):
    path: Str


class StoragePoolLookupByTargetPathRet(Message):
    pool: Pool


class ConnectGetStoragePoolCapabilitiesArgs(Message):
    flags: U32


class ConnectGetStoragePoolCapabilitiesRet(Message):
    capabilities: Str

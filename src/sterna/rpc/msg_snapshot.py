"""Messages about snapshots, checkpoints and backups of domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Checkpoint, Dom, Snap
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, Max, Str


class DomainSnapshotCreateXmlArgs(Message):
    dom: Dom
    xml_desc: Str
    flags: U32


class DomainSnapshotCreateXmlRet(Message):
    snap: Snap


class DomainSnapshotGetXmlDescArgs(Message):
    snap: Snap
    flags: U32


class DomainSnapshotGetXmlDescRet(Message):
    xml: Str


class DomainSnapshotNumArgs(Message):
    dom: Dom
    flags: U32


class DomainSnapshotNumRet(Message):
    num: I32


class DomainSnapshotListNamesArgs(Message):
    dom: Dom
    maxnames: I32
    flags: U32


class DomainSnapshotListNamesRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class DomainSnapshotLookupByNameArgs(Message):
    dom: Dom
    name: Str
    flags: U32


class DomainSnapshotLookupByNameRet(Message):
    snap: Snap


class DomainHasCurrentSnapshotArgs(Message):
    dom: Dom
    flags: U32


class DomainHasCurrentSnapshotRet(Message):
    result: I32


class DomainSnapshotCurrentArgs(Message):
    dom: Dom
    flags: U32


class DomainSnapshotCurrentRet(Message):
    snap: Snap


class DomainRevertToSnapshotArgs(Message):
    snap: Snap
    flags: U32


class DomainSnapshotDeleteArgs(Message):
    snap: Snap
    flags: U32


class DomainSnapshotGetParentArgs(Message):
    snap: Snap
    flags: U32


class DomainSnapshotGetParentRet(Message):
    snap: Snap


class DomainSnapshotNumChildrenArgs(Message):
    snap: Snap
    flags: U32


class DomainSnapshotNumChildrenRet(Message):
    num: I32


class DomainSnapshotListChildrenNamesArgs(Message):
    snap: Snap
    maxnames: I32
    flags: U32


class DomainSnapshotListChildrenNamesRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class DomainSnapshotIsCurrentArgs(Message):
    snap: Snap
    flags: U32


class DomainSnapshotIsCurrentRet(Message):
    current: I32


class DomainSnapshotHasMetadataArgs(Message):
    snap: Snap
    flags: U32


class DomainSnapshotHasMetadataRet(Message):
    metadata: I32


class DomainListAllSnapshotsArgs(Message):
    dom: Dom
    need_results: I32
    flags: U32


class DomainListAllSnapshotsRet(Message):
    snapshots: Annotated[Sequence[Snap], Max(16_384)]
    ret: I32


class DomainSnapshotListAllChildrenArgs(Message):
    snapshot: Snap
    need_results: I32
    flags: U32


class DomainSnapshotListAllChildrenRet(Message):
    snapshots: Annotated[Sequence[Snap], Max(16_384)]
    ret: I32


class DomainCheckpointCreateXmlArgs(Message):
    dom: Dom
    xml_desc: Str
    flags: U32


class DomainCheckpointCreateXmlRet(Message):
    checkpoint: Checkpoint


class DomainCheckpointGetXmlDescArgs(Message):
    checkpoint: Checkpoint
    flags: U32


class DomainCheckpointGetXmlDescRet(Message):
    xml: Str


class DomainListAllCheckpointsArgs(Message):
    dom: Dom
    need_results: I32
    flags: U32


class DomainListAllCheckpointsRet(Message):
    checkpoints: Annotated[Sequence[Checkpoint], Max(16_384)]
    ret: I32


class DomainCheckpointListAllChildrenArgs(Message):
    checkpoint: Checkpoint
    need_results: I32
    flags: U32


class DomainCheckpointListAllChildrenRet(Message):
    checkpoints: Annotated[Sequence[Checkpoint], Max(16_384)]
    ret: I32


class DomainCheckpointLookupByNameArgs(Message):
    dom: Dom
    name: Str
    flags: U32


class DomainCheckpointLookupByNameRet(Message):
    checkpoint: Checkpoint


class DomainCheckpointGetParentArgs(Message):
    checkpoint: Checkpoint
    flags: U32


class DomainCheckpointGetParentRet(Message):
    parent: Checkpoint


class DomainCheckpointDeleteArgs(Message):
    checkpoint: Checkpoint
    flags: U32


class DomainBackupBeginArgs(Message):
    dom: Dom
    backup_xml: Str
    checkpoint_xml: Str | None
    flags: U32


class DomainBackupGetXmlDescArgs(Message):
    dom: Dom
    flags: U32


class DomainBackupGetXmlDescRet(Message):
    xml: Str

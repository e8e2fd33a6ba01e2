"""Messages about secrets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Secret
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, Max, Opaque, Str, Uuid


class ConnectNumOfSecretsRet(Message):
    num: I32


class ConnectListSecretsArgs(Message):
    maxuuids: I32


class ConnectListSecretsRet(Message):
    uuids: Annotated[Sequence[Str], Max(16_384)]


class SecretLookupByUuidArgs(Message):
    uuid: Uuid


class SecretLookupByUuidRet(Message):
    secret: Secret


class SecretDefineXmlArgs(Message):
    xml: Str
    flags: U32


class SecretDefineXmlRet(Message):
    secret: Secret


class SecretGetXmlDescArgs(Message):
    secret: Secret
    flags: U32


class SecretGetXmlDescRet(Message):
    xml: Str


class SecretSetValueArgs(Message):
    secret: Secret
    value: Annotated[bytes, Opaque(65_536)]
    flags: U32


class SecretGetValueArgs(Message):
    secret: Secret
    flags: U32


class SecretGetValueRet(Message):
    value: Annotated[bytes, Opaque(65_536)]


class SecretUndefineArgs(Message):
    secret: Secret


class SecretLookupByUsageArgs(Message):
    usageType: I32
    usageID: Str


class SecretLookupByUsageRet(Message):
    secret: Secret


class ConnectListAllSecretsArgs(Message):
    need_results: I32
    flags: U32


class ConnectListAllSecretsRet(Message):
    secrets: Annotated[Sequence[Secret], Max(16_384)]
    ret: U32

"""The table of procedures, typed parameters, and errors as bodies."""

from __future__ import annotations

import errno

import pytest

from sterna.errors import (
    ErrorDomain,
    NoConnect,
    NoDomain,
    OperationInvalid,
    SternaError,
    SystemCallError,
    UnknownError,
    XmlDetail,
)
from sterna.rpc.calls import (
    PROCEDURES,
    QEMU_PROGRAM,
    REMOTE_PROGRAM,
    by_number,
    procedure,
)
from sterna.rpc.error_body import TEXT_BYTES_MAX, from_body, to_body
from sterna.rpc.msg_agent import DomainInterfaceAddressesArgs
from sterna.rpc.msg_common import Dom, TypedParam
from sterna.rpc.msg_domain import DomainGetXmlDescArgs
from sterna.rpc.typed_params import ParamType, decode_params, decode_repeated, encode_params
from sterna.xdr import decode, encode

DOM = Dom("g", bytes(16), -1)


def test_numbers_and_names_are_unique_and_complete() -> None:
    remote = {p.number for p in PROCEDURES if p.program == REMOTE_PROGRAM}
    assert remote == set(range(1, 454))
    assert {p.number for p in PROCEDURES if p.program == QEMU_PROGRAM} == set(range(1, 8))
    assert len({p.name for p in PROCEDURES}) == len(PROCEDURES)


@pytest.mark.parametrize(
    ("name", "api"),
    [
        ("DOMAIN_SUSPEND", "virDomainSuspend"),
        ("DOMAIN_GET_XML_DESC", "virDomainGetXMLDesc"),
        ("CONNECT_GET_ALL_DOMAIN_STATS", "virConnectGetAllDomainStats"),
        ("DOMAIN_LOOKUP_BY_UUID", "virDomainLookupByUUID"),
        ("NODE_GET_CPU_STATS", "virNodeGetCPUStats"),
        ("DOMAIN_OPEN_GRAPHICS_FD", "virDomainOpenGraphicsFD"),
        ("NWFILTER_DEFINE_XML", "virNWFilterDefineXML"),
        ("DOMAIN_MONITOR_COMMAND", "virDomainQemuMonitorCommand"),
        ("CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY", "virConnectDomainEventRegisterAny"),
    ],
)
def test_api_names(name: str, api: str) -> None:
    assert procedure(name).api_name == api


def test_rows_say_what_there_is_to_say() -> None:
    suspend, upload = procedure("DOMAIN_SUSPEND"), procedure("STORAGE_VOL_UPLOAD")
    assert (suspend.read_only, suspend.high_priority, suspend.stream) == (False, False, None)
    assert (upload.stream, upload.sparse) == ("up", True)
    assert (procedure("DOMAIN_SCREENSHOT").stream, procedure("DOMAIN_SCREENSHOT").sparse) == (
        "down",
        False,
    )
    assert procedure("DOMAIN_OPEN_CONSOLE").stream == "bidi"
    assert procedure("DOMAIN_CREATE_XML_WITH_FILES").fds_in_call
    assert procedure("DOMAIN_OPEN_GRAPHICS_FD").fds_in_reply
    assert procedure("DOMAIN_GET_STATE").high_priority
    assert procedure("DOMAIN_EVENT_LIFECYCLE").is_event
    assert by_number(REMOTE_PROGRAM, 99_999) is None
    assert "GET_STATE" in repr(procedure("DOMAIN_GET_STATE"))


def test_what_read_only_connections_may_not_do() -> None:
    suspend, xml = procedure("DOMAIN_SUSPEND"), procedure("DOMAIN_GET_XML_DESC")
    addresses = procedure("DOMAIN_INTERFACE_ADDRESSES")
    assert suspend.denied_read_only(None) == "read only access prevents virDomainSuspend"
    assert xml.denied_read_only(DomainGetXmlDescArgs(DOM, 2)) is None
    for flags in (1, 8, 9):
        denied = xml.denied_read_only(DomainGetXmlDescArgs(DOM, flags))
        assert denied == "virDomainGetXMLDesc with secure flag"
    assert addresses.denied_read_only(DomainInterfaceAddressesArgs(DOM, 0, 0)) is None
    assert addresses.denied_read_only(DomainInterfaceAddressesArgs(DOM, 1, 0)) is not None


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, ParamType.BOOLEAN),
        ("x", ParamType.STRING),
        (1.5, ParamType.DOUBLE),
        (-1, ParamType.INT),
        (1 << 31, ParamType.UINT),
        (1 << 32, ParamType.LLONG),
        (-(1 << 40), ParamType.LLONG),
        (1 << 63, ParamType.ULLONG),
    ],
)
def test_the_narrowest_type_is_chosen(value: int | str | float | bool, kind: ParamType) -> None:
    (param,) = encode_params({"n": value})
    assert param == TypedParam("n", kind, value)
    assert decode(TypedParam, encode(param)) == param


def test_given_types_and_repeated_names() -> None:
    params = encode_params(
        [
            ("time", 5, ParamType.ULLONG),
            ("disk", "vda", ParamType.STRING),
            ("disk", "vdb", ParamType.STRING),
        ]
    )
    assert params[0].type == 4
    assert decode_params(params) == {"time": 5, "disk": "vdb"}
    assert decode_repeated(params, "disk") == ["vda", "vdb"]


@pytest.mark.parametrize(
    ("error", "message", "str1", "str2", "int1"),
    [
        (NoDomain("x"), "Domain not found: x", "Domain not found: %s", "x", -1),
        (OperationInvalid(), "Requested operation is not valid", None, None, -1),
        (XmlDetail("(line 1)"), "(line 1)", "%s", "(line 1)", -1),
        (NoConnect("x:///"), "no connection driver available for x:///", "%s", None, -1),
        (
            SystemCallError("Unable to open", errno=errno.ENOENT),
            "Unable to open: No such file or directory",
            "%s",
            "Unable to open: No such file or directory",
            errno.ENOENT,
        ),
    ],
)
def test_errors_as_libvirt_fills_them(
    error: SternaError, message: str, str1: str | None, str2: str | None, int1: int
) -> None:
    body = to_body(error)
    assert (body.message, body.level, body.int1) == (message, 2, int1)
    if str1 is not None:
        assert body.str1 == str1
    if str2 is not None:
        assert body.str2 == str2
    back = from_body(body)
    assert type(back) is type(error)
    assert str(back) == message
    if isinstance(back, SystemCallError):
        assert back.errno == errno.ENOENT


@pytest.mark.parametrize(
    "text", ["x" * 5_000_000, "é" * 3_000_000, "a\0b", "\udc80 surrogate", "😀" * 40_000]
)
def test_an_error_can_always_be_encoded(text: str) -> None:
    # libvirtd 9.0 drops the connection of who looks up a name of 4 MiB (observed).
    for error in (NoDomain(text), XmlDetail(text), UnknownError(1 << 40, text, domain=1 << 50)):
        raw = encode(to_body(error))
        assert len(raw) < 2 * TEXT_BYTES_MAX + 4096


def test_domains_survive() -> None:
    error = NoDomain("x", domain=ErrorDomain.REMOTE)
    assert from_body(to_body(error)).domain == ErrorDomain.REMOTE

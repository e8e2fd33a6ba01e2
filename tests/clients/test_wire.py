"""The wire against the real thing: virsh and libvirt-python on a few answers of ours, our client on
a real libvirtd, and the same bad packets to both daemons."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sterna.errors import InternalError, NoDomain, NoSupport, RpcError, SystemCallError
from sterna.rpc.asyncio_shell import (
    Call,
    ClientConnection,
    ClientStream,
    ServerConnection,
    ServerStream,
)
from sterna.rpc.calls import KEEPALIVE_PROGRAM, Keepalive
from sterna.rpc.frame import PacketType, Status, build
from sterna.rpc.msg_common import Dom, Hole
from sterna.rpc.msg_connect import (
    AuthListRet,
    ConnectGetHostnameRet,
    ConnectGetLibVersionRet,
    ConnectListAllDomainsRet,
    ConnectOpenArgs,
    ConnectSupportsFeatureArgs,
    ConnectSupportsFeatureRet,
)
from sterna.rpc.msg_device import DomainScreenshotRet
from sterna.rpc.msg_domain import (
    DomainCreateXmlArgs,
    DomainDefineXmlArgs,
    DomainDestroyArgs,
    DomainGetStateRet,
    DomainLookupByNameArgs,
    DomainLookupByNameRet,
    DomainUndefineArgs,
)
from sterna.rpc.msg_event import (
    ConnectDomainEventCallbackDeregisterAnyArgs,
    ConnectDomainEventCallbackRegisterAnyArgs,
    ConnectDomainEventCallbackRegisterAnyRet,
    DomainEventCallbackLifecycleMsg,
)
from sterna.rpc.msg_nodedev import NodeDeviceUpdateArgs
from sterna.rpc.msg_qemu import DomainMonitorCommandWithFilesArgs
from sterna.rpc.msg_storage import (
    StoragePoolCreateXmlArgs,
    StoragePoolDestroyArgs,
    StorageVolCreateXmlArgs,
    StorageVolDownloadArgs,
    StorageVolUploadArgs,
)
from support.clients import PLAIN, SYSTEM_PYTHON, VIRSH
from support.real_libvirtd import RealLibvirtd, available
from support.wire import call_packet, packets

pytestmark = pytest.mark.clients

DOM = Dom("g1", bytes(range(16)), 3)
PICTURE = bytes(range(256)) * 4000


class Scripted:
    """A daemon with one guest and as few answers as the clients of these tests need."""

    def __init__(self) -> None:
        self.connections: set[ServerConnection] = set()
        self.seen: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def accept(self, sock: socket.socket) -> None:
        connection = ServerConnection(sock, self.serve)
        self.connections.add(connection)
        connection.add_close_callback(lambda: self.connections.discard(connection))

    def serve(self, connection: ServerConnection, call: Call) -> None:
        name = call.procedure.name
        args: Any = call.args
        self.seen.append(name)
        if name in ANSWERS:
            connection.reply(call, ANSWERS[name])
            if name == "CONNECT_CLOSE":
                connection.close()
        elif name == "CONNECT_SUPPORTS_FEATURE":
            if args.feature == 10:
                connection.start_keepalive(0.2, 5)
            connection.reply(call, ConnectSupportsFeatureRet(int(args.feature in (10, 14, 15))))
        elif name == "DOMAIN_LOOKUP_BY_NAME" and args.name != DOM.name:
            connection.reply_error(call, NoDomain(f"no domain with matching name '{args.name}'"))
        elif name == "DOMAIN_LOOKUP_BY_NAME":
            connection.reply(call, DomainLookupByNameRet(DOM))
        elif name == "DOMAIN_SCREENSHOT":
            stream = connection.open_stream(call)
            connection.reply(call, DomainScreenshotRet("image/png"))
            self.tasks.append(asyncio.ensure_future(send_picture(stream)))
        elif name == "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY":
            connection.reply(call, ConnectDomainEventCallbackRegisterAnyRet(7))
            event = DomainEventCallbackLifecycleMsg(7, DOM, 4, 0)
            connection.send_event("DOMAIN_EVENT_CALLBACK_LIFECYCLE", event)
        else:
            connection.reply_error(call, NoSupport(call.procedure.api_name))


ANSWERS: dict[str, Any] = {
    "AUTH_LIST": AuthListRet([0]),
    "CONNECT_OPEN": None,
    "CONNECT_CLOSE": None,
    "CONNECT_REGISTER_CLOSE_CALLBACK": None,
    "CONNECT_UNREGISTER_CLOSE_CALLBACK": None,
    "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY": None,
    "CONNECT_GET_HOSTNAME": ConnectGetHostnameRet("tern"),
    "CONNECT_GET_LIB_VERSION": ConnectGetLibVersionRet(9_000_000),
    "CONNECT_LIST_ALL_DOMAINS": ConnectListAllDomainsRet([DOM], 1),
    "DOMAIN_GET_STATE": DomainGetStateRet(1, 1),
}


async def send_picture(stream: ServerStream) -> None:
    await stream.send(PICTURE)
    await stream.send_eof()


@asynccontextmanager
async def scripted(path: Path) -> AsyncIterator[Scripted]:
    daemon = Scripted()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.setblocking(False)
        loop.add_reader(listening, lambda: daemon.accept(listening.accept()[0]))
        try:
            yield daemon
        finally:
            loop.remove_reader(listening)
            for connection in list(daemon.connections):
                connection.abort("the test is over")


async def run(*argv: str) -> tuple[int, str]:
    """A client program's exit code and all it wrote."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **PLAIN},
    )
    try:
        async with asyncio.timeout(20):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode()


async def virsh(path: Path, *words: str) -> tuple[int, str]:
    return await run(VIRSH, "-c", f"qemu:///system?socket={path}", *words)


async def test_virsh_understands_us(short_dir: Path) -> None:
    path = short_dir / "sock"
    async with scripted(path) as daemon:
        assert await virsh(path, "hostname") == (0, "tern\n\n")
        code, out = await virsh(path, "list", "--all")
        assert code == 0
        assert out.split("\n")[2].split() == ["3", "g1", "running"]
        assert await virsh(path, "domstate", "zz") == (1, "error: failed to get domain 'zz'\n\n")
        code, out = await virsh(path, "capabilities")
        assert code == 1
        assert "not supported by the connection driver: virConnectGetCapabilities" in out
        assert not daemon.connections
    assert daemon.seen[:7] == [
        "AUTH_LIST",
        "CONNECT_SUPPORTS_FEATURE",
        "CONNECT_OPEN",
        "CONNECT_SUPPORTS_FEATURE",
        "CONNECT_SUPPORTS_FEATURE",
        "CONNECT_REGISTER_CLOSE_CALLBACK",
        "CONNECT_GET_HOSTNAME",
    ]


async def test_virsh_reads_a_stream(short_dir: Path) -> None:
    path, picture = short_dir / "sock", short_dir / "picture"
    async with scripted(path):
        code, out = await virsh(path, "screenshot", "g1", "--file", str(picture))
    assert code == 0, out
    assert picture.read_bytes() == PICTURE


async def test_virsh_gets_events_and_answers_pings(short_dir: Path) -> None:
    path = short_dir / "sock"
    async with scripted(path) as daemon:
        # Two seconds without an event: with our pings every 0.2 s it must answer some.
        words = ("event", "--domain", "g1", "--event", "reboot", "--timeout", "2")
        code, out = await virsh(path, *words)
        assert "event loop timed out" in out, (code, out)
        code, out = await virsh(path, "event", "--event", "lifecycle", "--timeout", "5")
    assert (code, out.splitlines()[0]) == (
        0,
        "event 'lifecycle' for domain 'g1': Resumed Unpaused",
    )
    assert "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY" in daemon.seen


PYTHON = """
import libvirt, sys
c = libvirt.open(sys.argv[1])
print(c.getHostname(), c.getLibVersion(), [d.name() for d in c.listAllDomains()])
try:
    c.lookupByName("zz")
except libvirt.libvirtError as e:
    print(e.get_error_code(), e.get_error_domain(), e.get_str1(), e.get_str2(), e.get_int1())
c.close()
"""


async def test_libvirt_python_sees_every_field_of_an_error(short_dir: Path) -> None:
    path = short_dir / "sock"
    async with scripted(path):
        _, out = await run(SYSTEM_PYTHON, "-c", PYTHON, f"qemu:///system?socket={path}")
    assert "tern 9000000 ['g1']" in out
    assert "42 10 Domain not found: %s no domain with matching name 'zz' -1" in out


# -- against a real libvirtd


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLibvirtd]:
    if not available():
        pytest.skip("no libvirtd here that we may run in namespaces")
    host = RealLibvirtd(tmp_path_factory.mktemp("r"), name="real", address="192.0.2.1")
    try:
        host.start()
        yield host
    finally:
        host.end_everything()


XML = """<domain type='qemu'><name>wire</name><memory>16384</memory>
<os><type arch='x86_64'>hvm</type></os></domain>"""


async def test_our_client_speaks_with_libvirtd(libvirtd: RealLibvirtd) -> None:
    client = await ClientConnection.connect_unix(libvirtd.socket)
    got: list[tuple[str, int]] = []
    client.events = lambda procedure, message: got.append((procedure.name, message.event))
    assert (await client.call("AUTH_LIST")).types == [0]
    with pytest.raises(InternalError, match="hypervisor connection not open"):
        await client.call("CONNECT_GET_HOSTNAME")
    ret = await client.call("CONNECT_SUPPORTS_FEATURE", ConnectSupportsFeatureArgs(10))
    assert ret.supported == 1
    client.start_keepalive(0.2, 5)
    await client.call("CONNECT_OPEN", ConnectOpenArgs("qemu:///system", 0))
    assert (await client.call("CONNECT_GET_LIB_VERSION")).lib_ver >= 9_000_000
    assert (await client.call("CONNECT_GET_HOSTNAME")).hostname.startswith("real")
    with pytest.raises(NoDomain) as caught:
        await client.call("DOMAIN_LOOKUP_BY_NAME", DomainLookupByNameArgs("zz"))
    assert str(caught.value) == "Domain not found: no domain with matching name 'zz'"
    with pytest.raises(RpcError, match="unknown procedure: 447"):
        await client.call("NODE_DEVICE_UPDATE", NodeDeviceUpdateArgs("x", "<device/>", 0))
    registered = await client.call(
        "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY",
        ConnectDomainEventCallbackRegisterAnyArgs(0, None),
    )
    dom = (await client.call("DOMAIN_DEFINE_XML", DomainDefineXmlArgs(XML))).dom
    assert (dom.name, dom.id) == ("wire", -1)
    await client.call("DOMAIN_UNDEFINE", DomainUndefineArgs(dom))
    await client.call(
        "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY",
        ConnectDomainEventCallbackDeregisterAnyArgs(registered.callbackID),
    )
    assert got == [("DOMAIN_EVENT_CALLBACK_LIFECYCLE", n) for n in (0, 1)]
    await asyncio.sleep(0.5)  # pings both ways
    await client.call("CONNECT_CLOSE")
    assert await client.wait_closed() == "the peer closed the connection"


@asynccontextmanager
async def session(libvirtd: RealLibvirtd) -> AsyncIterator[ClientConnection]:
    client = await ClientConnection.connect_unix(libvirtd.socket)
    await client.call("AUTH_LIST")
    await client.call("CONNECT_OPEN", ConnectOpenArgs("qemu:///system", 0))
    try:
        yield client
    finally:
        client.close()


async def received(stream: ClientStream) -> tuple[bytes, int]:
    """A stream's data with its holes filled, and how many bytes of it were holes."""
    data, holes = bytearray(), 0
    while (item := await stream.receive()) is not None:
        if isinstance(item, Hole):
            holes += item.length
            data += bytes(item.length)
        else:
            data += item
    await stream.finish()
    return bytes(data), holes


async def test_our_streams_with_libvirtd(libvirtd: RealLibvirtd, short_dir: Path) -> None:
    size = 6 << 20
    data = os.urandom(1 << 20) + bytes(4 << 20) + os.urandom(1 << 20)
    pool_xml = f"<pool type='dir'><name>wire</name><target><path>{short_dir}</path></target></pool>"
    vol_xml = (
        f"<volume><name>v</name><capacity>{size}</capacity><allocation>0</allocation></volume>"
    )
    async with session(libvirtd) as client:
        made = await client.call("STORAGE_POOL_CREATE_XML", StoragePoolCreateXmlArgs(pool_xml, 0))
        vol = (
            await client.call(
                "STORAGE_VOL_CREATE_XML", StorageVolCreateXmlArgs(made.pool, vol_xml, 0)
            )
        ).vol
        assert Path(vol.key) == short_dir / "v"
        upload = StorageVolUploadArgs(vol, 0, size, 1)
        stream = await client.open_stream("STORAGE_VOL_UPLOAD", upload, sparse=True)
        await stream.send(data[: 1 << 20])
        await stream.send_hole(4 << 20)
        await stream.send(data[5 << 20 :])
        await stream.finish()
        assert (short_dir / "v").read_bytes() == data
        for flags in (0, 1):
            download = StorageVolDownloadArgs(vol, 0, 0, flags)
            stream = await client.open_stream("STORAGE_VOL_DOWNLOAD", download, sparse=bool(flags))
            got, holes = await received(stream)
            assert got == data
            assert holes == (4 << 20) * flags
        # Given up in the middle, and still there for the next one.
        download = StorageVolDownloadArgs(vol, 0, 0, 0)
        stream = await client.open_stream("STORAGE_VOL_DOWNLOAD", download)
        await stream.receive()
        await stream.abort()
        # More than the call said is refused in the stream.
        stream = await client.open_stream(
            "STORAGE_VOL_UPLOAD", StorageVolUploadArgs(vol, 0, 1000, 0)
        )
        with pytest.raises(SystemCallError, match="cannot write to stream") as caught:
            await upload_too_much(stream)
        assert caught.value.errno == errno.ENOSPC
        await client.call("STORAGE_POOL_DESTROY", StoragePoolDestroyArgs(made.pool))


async def upload_too_much(stream: ClientStream) -> None:
    await stream.send(bytes(1 << 20))
    await stream.finish()


async def test_our_descriptors_with_libvirtd(libvirtd: RealLibvirtd, short_dir: Path) -> None:
    async with session(libvirtd) as client:
        made = await client.call("DOMAIN_CREATE_XML", DomainCreateXmlArgs(XML, 1))
        try:
            with (short_dir / "file").open("wb") as file:
                command = '{"execute":"add-fd","arguments":{"fdset-id":5,"opaque":"ours"}}'
                args = DomainMonitorCommandWithFilesArgs(made.dom, command, 0)
                ret = await client.call("DOMAIN_MONITOR_COMMAND_WITH_FILES", args, [file.fileno()])
            assert '"fdset-id":5' in ret.result
            args = DomainMonitorCommandWithFilesArgs(made.dom, '{"execute":"query-fdsets"}', 0)
            ret = await client.call("DOMAIN_MONITOR_COMMAND_WITH_FILES", args)
            assert '"opaque":"ours"' in ret.result
        finally:
            await client.call("DOMAIN_DESTROY", DomainDestroyArgs(made.dom))


ASK = call_packet("CONNECT_GET_LIB_VERSION", serial=99)

# What each of these gets, byte by byte, must be the same from both daemons.
ODD: dict[str, bytes] = {
    "unknown procedure": call_packet("AUTH_LIST", number=9999),
    "an event as a call": call_packet("AUTH_LIST", number=318),
    "unknown program": call_packet("AUTH_LIST", program=77),
    "version 2": call_packet("AUTH_LIST", version=2),
    "a status": call_packet("AUTH_LIST", status=Status.CONTINUE),
    "no arguments": call_packet("DOMAIN_LOOKUP_BY_NAME"),
    "a count too large": call_packet("DOMAIN_LOOKUP_BY_NAME", raw=b"\xff" * 4),
    "a reply": call_packet("AUTH_LIST", kind=PacketType.REPLY),
    "a message": call_packet("AUTH_LIST", kind=PacketType.MESSAGE),
    "an unknown type": call_packet("AUTH_LIST", kind=17),
    "a stream that is not open": call_packet("DOMAIN_OPEN_CONSOLE", kind=PacketType.STREAM),
    "trailing bytes": call_packet("CONNECT_SUPPORTS_FEATURE", raw=struct.pack(">III", 14, 1, 2)),
    "odd padding": call_packet("DOMAIN_LOOKUP_BY_NAME", raw=struct.pack(">I4s", 1, b"z\1\2\3")),
    "a ping": bytes(build(KEEPALIVE_PROGRAM, Keepalive.PING, PacketType.MESSAGE, 0)),
    "unknown keepalive": bytes(build(KEEPALIVE_PROGRAM, 9, PacketType.MESSAGE, 0)),
    "length 27": struct.pack(">I", 27) + bytes(100),
    "length too large": struct.pack(">I", 33_554_437) + bytes(100),
}


async def answers(path: Path, raw: bytes) -> bytes:
    """All that a daemon sends to a client that opens, sends this, asks once more, and waits."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, str(path))
        await loop.sock_sendall(sock, call_packet("AUTH_LIST"))
        await loop.sock_recv(sock, 36)
        opening = ConnectOpenArgs("qemu:///system", 0)
        await loop.sock_sendall(sock, call_packet("CONNECT_OPEN", opening))
        await loop.sock_recv(sock, 28)
        await loop.sock_sendall(sock, raw)
        # Asked only after a moment: replies may overtake one another otherwise.
        await asyncio.sleep(0.05)
        got = b""
        try:
            await loop.sock_sendall(sock, ASK)
            async with asyncio.timeout(5):
                while not got.endswith(struct.pack(">Q", 9_000_000)):
                    piece = await loop.sock_recv(sock, 65_536)
                    if not piece:
                        return got + b"<end>"
                    got += piece
        except (BrokenPipeError, ConnectionResetError):
            return got + b"<end>"
        return got


@pytest.mark.parametrize("name", ODD)
async def test_odd_packets_get_libvirtds_answers(
    libvirtd: RealLibvirtd, short_dir: Path, name: str
) -> None:
    path = short_dir / "sock"
    theirs = await answers(libvirtd.socket, ODD[name])
    async with scripted(path):
        ours = await answers(path, ODD[name])
    assert ours == theirs
    if not ours.endswith(b"<end>"):
        assert packets(ours)[-1].serial == 99

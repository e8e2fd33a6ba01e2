"""A definition as the command line that would run it."""

from __future__ import annotations

import datetime
import shlex

from sterna.config import assign_aliases, parse_domain
from sterna.config.clone import clone
from sterna.config.model import CharSource
from sterna.errors import ErrorDomain, InvalidArg
from sterna.qemu.argv import LaunchSpec, assign_node_indexes, build_argv
from sterna.rpc.msg_connect import ConnectDomainXmlToNativeArgs, ConnectDomainXmlToNativeRet
from sterna.server.dispatch import check_flags, handles
from sterna.server.session import Session

FORMAT = "qemu-argv"
VNC_PORT = 5900
MONITOR_FD = 3
"""Where the monitor's socket would be; with a real start it is another number each time."""


@handles("CONNECT_DOMAIN_XML_TO_NATIVE")
async def connect_domain_xml_to_native(
    session: Session, args: ConnectDomainXmlToNativeArgs
) -> ConnectDomainXmlToNativeRet:
    """What a start would run, on one line. Nothing is taken from the host for it."""
    check_flags(args.flags, 0, "qemuConnectDomainXMLToNative")
    if args.nativeFormat != FORMAT:
        raise InvalidArg(f"unsupported config type {args.nativeFormat}", domain=ErrorDomain.QEMU)
    context = session.context
    definition = clone(await context.registry.complete(parse_domain(args.domainXml)))
    arch = (definition.os.arch if definition.os is not None else None) or "x86_64"
    caps = await context.emulators.caps(definition.devices.emulator, arch)
    assign_aliases(definition)
    assign_node_indexes(definition)
    state_dir = context.places.qemu_run / definition.name
    for channel in definition.devices.channels:
        if channel.type == "unix" and not channel.path:
            place = str(state_dir / "channel/target" / (channel.target_name or channel.alias or ""))
            channel.sources = [CharSource(mode="bind", path=place)]
    for graphics in definition.devices.graphics:
        if graphics.type == "vnc" and graphics.port in (None, -1):
            graphics.port = VNC_PORT
    launch = LaunchSpec(
        monitor_fd=MONITOR_FD,
        state_dir=str(state_dir),
        now=datetime.datetime.now(datetime.UTC),
    )
    argv = build_argv(definition, caps, launch)
    words = [f"{name}={value}" for name, value in argv.environment.items()]
    words += argv.args
    return ConnectDomainXmlToNativeRet(nativeConfig=shlex.join(words) + "\n")

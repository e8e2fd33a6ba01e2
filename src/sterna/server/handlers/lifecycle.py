"""Making, starting, stopping and forgetting guests, and what is written down about them."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

from sterna.config import format_domain
from sterna.config.variants import strip_live
from sterna.errors import BadArgument, InvalidArg, OperationInvalid, SystemCallError
from sterna.guest import lifecycle, power, save
from sterna.guest.flags import SaveFlags, StartFlags, UndefineFlags
from sterna.guest.power import ShutdownMode
from sterna.rpc.msg_domain import (
    DomainCreateArgs,
    DomainCreateWithFlagsArgs,
    DomainCreateWithFlagsRet,
    DomainCreateXmlArgs,
    DomainCreateXmlRet,
    DomainDefineXmlArgs,
    DomainDefineXmlFlagsArgs,
    DomainDefineXmlFlagsRet,
    DomainDefineXmlRet,
    DomainDestroyArgs,
    DomainDestroyFlagsArgs,
    DomainInjectNmiArgs,
    DomainManagedSaveArgs,
    DomainManagedSaveGetXmlDescArgs,
    DomainManagedSaveGetXmlDescRet,
    DomainManagedSaveRemoveArgs,
    DomainPmWakeupArgs,
    DomainRebootArgs,
    DomainRenameArgs,
    DomainRenameRet,
    DomainResetArgs,
    DomainRestoreArgs,
    DomainRestoreFlagsArgs,
    DomainResumeArgs,
    DomainSaveArgs,
    DomainSaveFlagsArgs,
    DomainSaveImageGetXmlDescArgs,
    DomainSaveImageGetXmlDescRet,
    DomainSetAutostartArgs,
    DomainShutdownArgs,
    DomainShutdownFlagsArgs,
    DomainSuspendArgs,
    DomainUndefineArgs,
    DomainUndefineFlagsArgs,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import encode_guest, find
from sterna.server.session import Session

XML_SECURE = 1
DEFINE_VALIDATE = 1
DESTROY_GRACEFUL, DESTROY_REMOVE_LOGS = 1, 2
ALL_START_FLAGS = 63
ALL_UNDEFINE_FLAGS = 127
ALL_SAVE_FLAGS = 15


@handles("DOMAIN_DEFINE_XML")
async def domain_define_xml(session: Session, args: DomainDefineXmlArgs) -> DomainDefineXmlRet:
    guest = await session.context.registry.define(args.xml)
    return DomainDefineXmlRet(dom=encode_guest(guest))


@handles("DOMAIN_DEFINE_XML_FLAGS")
async def domain_define_xml_flags(
    session: Session, args: DomainDefineXmlFlagsArgs
) -> DomainDefineXmlFlagsRet:
    """Every definition is validated: what is not understood is refused, flag or no flag."""
    check_flags(args.flags, DEFINE_VALIDATE, "qemuDomainDefineXMLFlags")
    guest = await session.context.registry.define(args.xml)
    return DomainDefineXmlFlagsRet(dom=encode_guest(guest))


@handles("DOMAIN_CREATE_XML")
async def domain_create_xml(session: Session, args: DomainCreateXmlArgs) -> DomainCreateXmlRet:
    check_flags(args.flags, ALL_START_FLAGS, "qemuDomainCreateXML")
    guest = await session.context.registry.create(
        args.xml_desc, StartFlags(args.flags), session.connection
    )
    return DomainCreateXmlRet(dom=encode_guest(guest))


@handles("DOMAIN_CREATE")
async def domain_create(session: Session, args: DomainCreateArgs) -> None:
    guest = find(session, args.dom)
    await lifecycle.start(guest, owner=session.connection, api="remoteDispatchDomainCreate")


@handles("DOMAIN_CREATE_WITH_FLAGS")
async def domain_create_with_flags(
    session: Session, args: DomainCreateWithFlagsArgs
) -> DomainCreateWithFlagsRet:
    check_flags(args.flags, ALL_START_FLAGS, "qemuDomainCreateWithFlags")
    guest = find(session, args.dom)
    await lifecycle.start(guest, StartFlags(args.flags), session.connection)
    return DomainCreateWithFlagsRet(dom=encode_guest(guest))


@handles("DOMAIN_DESTROY")
async def domain_destroy(session: Session, args: DomainDestroyArgs) -> None:
    await power.destroy(find(session, args.dom), api="remoteDispatchDomainDestroy")


@handles("DOMAIN_DESTROY_FLAGS")
async def domain_destroy_flags(session: Session, args: DomainDestroyFlagsArgs) -> None:
    check_flags(args.flags, DESTROY_GRACEFUL | DESTROY_REMOVE_LOGS, "qemuDomainDestroyFlags")
    guest = find(session, args.dom)
    await power.destroy(guest, graceful=bool(args.flags & DESTROY_GRACEFUL))
    if args.flags & DESTROY_REMOVE_LOGS:
        log = guest.surroundings.paths.log / f"{guest.name}.log"
        log.unlink(missing_ok=True)


@handles("DOMAIN_SHUTDOWN")
async def domain_shutdown(session: Session, args: DomainShutdownArgs) -> None:
    await power.shutdown(find(session, args.dom), api="remoteDispatchDomainShutdown")


@handles("DOMAIN_SHUTDOWN_FLAGS")
async def domain_shutdown_flags(session: Session, args: DomainShutdownFlagsArgs) -> None:
    check_flags(args.flags, ShutdownMode.ACPI | ShutdownMode.AGENT, "qemuDomainShutdownFlags")
    await power.shutdown(find(session, args.dom), ShutdownMode(args.flags))


@handles("DOMAIN_REBOOT")
async def domain_reboot(session: Session, args: DomainRebootArgs) -> None:
    check_flags(args.flags, ShutdownMode.ACPI | ShutdownMode.AGENT, "qemuDomainReboot")
    await power.reboot(find(session, args.dom), ShutdownMode(args.flags))


@handles("DOMAIN_RESET")
async def domain_reset(session: Session, args: DomainResetArgs) -> None:
    check_flags(args.flags, 0, "qemuDomainReset")
    await power.reset(find(session, args.dom))


@handles("DOMAIN_SUSPEND")
async def domain_suspend(session: Session, args: DomainSuspendArgs) -> None:
    guest = find(session, args.dom)
    reason = session.context.migrations.source.user_pauses(guest, session.connection)
    await power.suspend(guest, reason=reason)


@handles("DOMAIN_RESUME")
async def domain_resume(session: Session, args: DomainResumeArgs) -> None:
    guest = find(session, args.dom)
    session.context.migrations.source.refuse_in_doubt(guest)
    await power.resume(guest)


@handles("DOMAIN_PM_WAKEUP")
async def domain_pm_wakeup(session: Session, args: DomainPmWakeupArgs) -> None:
    check_flags(args.flags, 0, "qemuDomainPMWakeup")
    await power.wake_up(find(session, args.dom))


@handles("DOMAIN_INJECT_NMI")
async def domain_inject_nmi(session: Session, args: DomainInjectNmiArgs) -> None:
    check_flags(args.flags, 0, "qemuDomainInjectNMI")
    await power.inject_nmi(find(session, args.dom))


@handles("DOMAIN_UNDEFINE")
async def domain_undefine(session: Session, args: DomainUndefineArgs) -> None:
    await lifecycle.undefine(find(session, args.dom))


@handles("DOMAIN_UNDEFINE_FLAGS")
async def domain_undefine_flags(session: Session, args: DomainUndefineFlagsArgs) -> None:
    check_flags(args.flags, ALL_UNDEFINE_FLAGS, "qemuDomainUndefineFlags")
    await lifecycle.undefine(find(session, args.dom), UndefineFlags(args.flags))


@handles("DOMAIN_SET_AUTOSTART")
async def domain_set_autostart(session: Session, args: DomainSetAutostartArgs) -> None:
    await lifecycle.set_autostart(find(session, args.dom), bool(args.autostart))


@handles("DOMAIN_RENAME")
async def domain_rename(session: Session, args: DomainRenameArgs) -> DomainRenameRet:
    check_flags(args.flags, 0, "qemuDomainRename")
    guest = find(session, args.dom)
    if args.new_name is None:
        raise InvalidArg("new_name in virDomainRename must not be NULL")
    await session.context.registry.rename(guest, args.new_name)
    return DomainRenameRet(retcode=0)


# -- save and restore ---------------------------------------------------------------------------


def save_flags(flags: int, function: str) -> SaveFlags:
    """The flags of a save or restore.

    Raises:
        BadArgument: unknown bits, or both "run" and "pause".
    """
    check_flags(flags, ALL_SAVE_FLAGS, function)
    if flags & SaveFlags.RUNNING and flags & SaveFlags.PAUSED:
        raise BadArgument(
            "flags 'VIR_DOMAIN_SAVE_RUNNING' and 'VIR_DOMAIN_SAVE_PAUSED' are mutually exclusive"
        )
    return SaveFlags(flags)


def absolute(path: str, function: str) -> Path:
    """A path on this host. The client's library makes it absolute; we have no place of our own.

    Raises:
        InvalidArg: it is not absolute.
    """
    if not path.startswith("/"):
        raise InvalidArg(f"path '{path}' in {function} must be absolute")
    return Path(path)


@handles("DOMAIN_SAVE")
async def domain_save(session: Session, args: DomainSaveArgs) -> None:
    guest = find(session, args.dom)
    await save.save(guest, absolute(args.to, "virDomainSave"), api="remoteDispatchDomainSave")


@handles("DOMAIN_SAVE_FLAGS")
async def domain_save_flags(session: Session, args: DomainSaveFlagsArgs) -> None:
    flags = save_flags(args.flags, "qemuDomainSaveFlags")
    guest = find(session, args.dom)
    await save.save(guest, absolute(args.to, "virDomainSaveFlags"), flags, xml=args.dxml)


@handles("DOMAIN_RESTORE")
async def domain_restore(session: Session, args: DomainRestoreArgs) -> None:
    path = absolute(args.from_, "virDomainRestore")
    await session.context.registry.restore(path, api="remoteDispatchDomainRestore")


@handles("DOMAIN_RESTORE_FLAGS")
async def domain_restore_flags(session: Session, args: DomainRestoreFlagsArgs) -> None:
    flags = save_flags(args.flags, "qemuDomainRestoreFlags")
    path = absolute(args.from_, "virDomainRestoreFlags")
    await session.context.registry.restore(path, flags, xml=args.dxml)


@handles("DOMAIN_MANAGED_SAVE")
async def domain_managed_save(session: Session, args: DomainManagedSaveArgs) -> None:
    flags = save_flags(args.flags, "qemuDomainManagedSave")
    await save.managed_save(find(session, args.dom), flags)


@handles("DOMAIN_MANAGED_SAVE_REMOVE")
def domain_managed_save_remove(session: Session, args: DomainManagedSaveRemoveArgs) -> None:
    check_flags(args.flags, 0, "qemuDomainManagedSaveRemove")
    guest = find(session, args.dom)
    if not guest.has_managed_save:
        raise SystemCallError(
            f"Failed to remove managed save file '{save.image_path(guest)}'", errno=errno.ENOENT
        )
    save.remove_managed_image(guest)


@handles("DOMAIN_MANAGED_SAVE_GET_XML_DESC")
async def domain_managed_save_get_xml_desc(
    session: Session, args: DomainManagedSaveGetXmlDescArgs
) -> DomainManagedSaveGetXmlDescRet:
    check_flags(args.flags, XML_SECURE, "qemuDomainManagedSaveGetXMLDesc")
    guest = find(session, args.dom)
    image = save.managed_image(guest)
    if image is None:
        raise OperationInvalid(f"domain '{guest.name}' does not have managed save image")
    return DomainManagedSaveGetXmlDescRet(xml=await image_xml(image, args.flags))


@handles("DOMAIN_SAVE_IMAGE_GET_XML_DESC")
async def domain_save_image_get_xml_desc(
    session: Session, args: DomainSaveImageGetXmlDescArgs
) -> DomainSaveImageGetXmlDescRet:
    check_flags(args.flags, XML_SECURE, "qemuDomainSaveImageGetXMLDesc")
    path = absolute(args.file, "virDomainSaveImageGetXMLDesc")
    return DomainSaveImageGetXmlDescRet(xml=await image_xml(path, args.flags))


async def image_xml(path: Path, flags: int) -> str:
    """The definition in a save image. A file of any place may be asked for: never on the loop."""
    definition, _ = await asyncio.to_thread(save.definition_of, path)
    strip_live(definition)
    return format_domain(definition, inactive=True, secure=bool(flags & XML_SECURE))

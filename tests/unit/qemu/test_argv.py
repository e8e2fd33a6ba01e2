"""What a start needs beside the command line, and what is refused by name."""

from __future__ import annotations

import dataclasses
import datetime

import pytest

from sterna.config.alias import assign_aliases
from sterna.config.document import parse_domain
from sterna.config.model import DomainDef
from sterna.errors import ConfigUnsupported, InternalError
from sterna.qemu.argv import Argv, LaunchSpec, TapFds, assign_node_indexes, build_argv
from support import argv_cases

NOW = datetime.datetime(2026, 11, 23, 12, 0, 0, tzinfo=datetime.UTC)
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
PCI = "<address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>"


def guest(
    devices: str = "",
    *,
    top: str = "",
    features: str = "<acpi/>",
    os: str = "",
    kind: str = "qemu",
    machine: str = "pc-i440fx-7.2",
) -> DomainDef:
    d = parse_domain(
        f"""<domain type='{kind}'><name>a</name><uuid>{UUID}</uuid>
        <memory unit='MiB'>64</memory><vcpu>1</vcpu>{top}
        <os><type arch='x86_64' machine='{machine}'>hvm</type>{os}</os>
        <features>{features}</features><devices>{devices}</devices></domain>"""
    )
    assign_aliases(d)
    return d


def spec(**changes: object) -> LaunchSpec:
    return dataclasses.replace(LaunchSpec(monitor_fd=9, state_dir="/state", now=NOW), **changes)


def build(d: DomainDef, **changes: object) -> Argv:
    return build_argv(d, argv_cases.plain_caps(), spec(**changes))


def disk(inner: str = "", *, driver: str = "", attributes: str = "") -> str:
    return (
        f"<disk type='file' device='disk' {attributes}><driver name='qemu' type='raw' {driver}/>"
        f"<source file='/a'/><target dev='vda' bus='virtio'/>{inner}{PCI}</disk>"
    )


def test_an_incoming_guest_waits_for_its_migration() -> None:
    args = build(guest(), incoming=True).args
    assert args[args.index("-incoming") + 1] == "defer"
    assert "-incoming" not in build(guest()).args


def test_descriptors_named_are_descriptors_passed() -> None:
    d = guest(
        "<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/>"
        f"<model type='virtio'/>{PCI}</interface>"
        "<serial type='file'><source path='/l'/><target port='0'/></serial>"
        "<serial type='unix'><source mode='bind' path='/s'/><target port='1'/></serial>"
    )
    argv = build(
        d,
        taps={"net0": TapFds((20,), (21,))},
        files={"charserial0": 22},
        sockets={"charserial1": 23},
    )
    assert sorted(argv.pass_fds) == [9, 20, 21, 22, 23]
    assert '{"type":"tap","fd":"20","vhost":true,"vhostfd":"21","id":"hostnet0"}' in argv.args
    assert "set=0,fd=22,opaque=serial0-source" in argv.args
    assert "socket,id=charserial1,fd=23,server=on,wait=off" in argv.args


def test_a_password_stands_in_qmp_and_not_on_the_command_line() -> None:
    argv = build(guest("<graphics type='vnc' port='5900' passwd='secret'/>"))
    assert not any("secret" in argument for argument in argv.args)
    assert [(call.command, call.arguments) for call in argv.setup] == [
        ("set_password", {"protocol": "vnc", "password": "secret"}),
        ("expire_password", {"protocol": "vnc", "time": "never"}),
    ]


def test_limits_link_balloon_and_its_statistics_are_set_over_qmp() -> None:
    d = guest(
        disk("<iotune><total_bytes_sec>1000</total_bytes_sec></iotune>")
        + "<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/>"
        f"<link state='down'/>{PCI}</interface>"
        f"<memballoon model='virtio'><stats period='5'/>{PCI}</memballoon>",
        top="<currentMemory unit='MiB'>32</currentMemory>",
    )
    setup = {call.command: call.arguments for call in build(d).setup}
    assert setup["block_set_io_throttle"] == {
        "id": "/machine/peripheral/virtio-disk0/virtio-backend",
        "bps": 1000,
        "bps_rd": 0,
        "bps_wr": 0,
        "iops": 0,
        "iops_rd": 0,
        "iops_wr": 0,
        "group": "drive-virtio-disk0",
    }
    assert setup["set_link"] == {"name": "net0", "up": False}
    assert setup["balloon"] == {"value": 32 << 20}
    assert setup["qom-set"] == {
        "path": "/machine/peripheral/balloon0",
        "property": "guest-stats-polling-interval",
        "value": 5,
    }
    assert "balloon" not in {call.command for call in build(d, incoming=True).setup}


def test_commas_are_doubled_where_commas_separate() -> None:
    d = guest("<serial type='unix'><source mode='bind' path='/a,b'/><target port='0'/></serial>")
    d.name = "x,y"
    args = build(d).args
    assert args[2] == "guest=x,,y,debug-threads=on"
    assert "socket,id=charserial0,path=/a,,b,server=on,wait=off" in args


def test_memory_in_files_needs_a_directory() -> None:
    argv = build(guest(top="<memoryBacking><source type='file'/></memoryBacking>"))
    assert argv.directories == {"/state/ram"}


def test_environment_of_the_guests_own_qemu() -> None:
    xml = f"""<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
        <name>a</name><uuid>{UUID}</uuid><memory>65536</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
        <clock offset='timezone' timezone='Europe/Paris'/><devices/>
        <qemu:commandline><qemu:env name='FOO' value='bar'/></qemu:commandline></domain>"""
    assert build(parse_domain(xml)).environment == {"FOO": "bar", "TZ": "Europe/Paris"}


def test_qemu_9_takes_as_machine_properties_what_were_options() -> None:
    d = guest(features="", top="<clock offset='utc'><timer name='hpet' present='no'/></clock>")
    new = build_argv(d, argv_cases.plain_caps(version=(9, 0, 0)), spec()).args
    assert "-no-acpi" not in new
    assert "-no-hpet" not in new
    assert new[new.index("-machine") + 1].endswith(",acpi=off,hpet=off")


def test_forwarding_from_the_guest() -> None:
    d = guest(
        "<channel type='pipe'><source path='/p'/>"
        "<target type='guestfwd' address='10.0.2.1' port='4600'/></channel>"
    )
    wanted = (
        '{"type":"user","guestfwd":[{"str":"tcp:10.0.2.1:4600-chardev:charchannel0"}],'
        '"id":"channel0"}'
    )
    assert wanted in build(d).args


def test_node_numbers_are_given_as_libvirt_gives_them() -> None:
    case = argv_cases.load("disk-cache-more")
    d = case.definition
    told = [disk.source.index for disk in d.devices.disks if disk.source]
    for one in d.devices.disks:
        if one.source is not None:
            one.source.index = None
    assign_node_indexes(d)
    assert [disk.source.index for disk in d.devices.disks if disk.source] == told


def test_hotpluggable_vcpus_are_plugged_in_later() -> None:
    vcpus = "".join(
        f"<vcpu id='{number}' enabled='{enabled}' hotpluggable='{hotpluggable}'/>"
        for number, enabled, hotpluggable in ((0, "yes", "no"), (1, "yes", "yes"), (2, "no", "yes"))
    )
    d = guest(top=f"<vcpus>{vcpus}</vcpus>")
    d.vcpu = 3
    args = build(d).args
    assert args[args.index("-smp") + 1] == "1,maxcpus=3,sockets=3,cores=1,threads=1"


REFUSED = {
    "a TPM": guest("<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"),
    "encryption": guest(disk("<encryption format='luks'/>")),
    "transient": guest(disk("<transient/>")),
    "vlan": guest(
        "<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/>"
        f"<vlan><tag id='4'/></vlan>{PCI}</interface>"
    ),
    "no tap": guest(
        "<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/>"
        f"<model type='virtio'/>{PCI}</interface>"
    ),
    "sdl": guest("<graphics type='sdl'/>"),
    "no port": guest("<graphics type='vnc' port='-1' autoport='yes'/>"),
    "hugepages": guest(top="<memoryBacking><hugepages/></memoryBacking>"),
    "launch security": guest(top="<launchSecurity type='sev'/>"),
    "nmdm": guest("<serial type='nmdm'><source master='/a' slave='/b'/></serial>"),
    "tls": guest(
        "<serial type='tcp'><source mode='bind' host='a' service='1' tls='yes'/></serial>"
    ),
    "host-passthrough under TCG": guest(top="<cpu mode='host-passthrough'/>"),
    "xen feature": guest(features="<xen><e820_host state='on'/></xen>"),
    "managed hostdev": guest(
        "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
        f"<address domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></source>{PCI}</hostdev>"
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_given_is_refused(what: str) -> None:
    with pytest.raises((ConfigUnsupported, InternalError)) as caught:
        build(REFUSED[what])
    assert caught.value.detail


INJECTED = {
    "a CPU feature": guest(
        top="<cpu><model>qemu64</model><feature policy='require' name='x,enforce'/></cpu>"
    ),
    "a CPU model": guest(top="<cpu><model>qemu64,enforce=on</model></cpu>"),
    "a CPU vendor": guest(top="<cpu><model vendor_id='a,b'>qemu64</model></cpu>"),
    "a machine": guest(machine="pc-i440fx-7.2,kernel_irqchip=off"),
    "an alias": guest(
        "<serial type='null'><target port='0'/><alias name='ua-x,path=/y'/></serial>"
    ),
    "a mode": guest(
        f"<filesystem fmode='1,path=/'><source dir='/a'/><target dir='b'/>{PCI}</filesystem>"
    ),
}


@pytest.mark.parametrize("what", INJECTED)
def test_no_word_of_the_definition_becomes_an_option_of_its_own(what: str) -> None:
    d = INJECTED[what]
    try:
        args = build(d).args
    except ConfigUnsupported:
        return
    assert not any(",path=" in argument for argument in args)


def test_a_host_model_must_have_been_replaced() -> None:
    with pytest.raises(InternalError, match="host-model"):
        build(guest(top="<cpu mode='host-model'/>"))


def test_a_model_this_qemu_does_not_know_is_refused() -> None:
    d = guest(top="<cpu mode='custom'><model>Pentium9</model></cpu>")
    caps = argv_cases.plain_caps(cpus_tcg=(argv_cases.cpu_model("qemu64"),))
    with pytest.raises(ConfigUnsupported, match="Pentium9"):
        build_argv(d, caps, spec())


def test_a_device_this_qemu_does_not_have_is_refused() -> None:
    d = guest(
        "<interface type='user'><mac address='52:54:00:11:22:33'/><model type='vmxnet3'/>"
        f"{PCI}</interface>"
    )
    caps = argv_cases.plain_caps(devices=frozenset({"virtio-net-pci"}))
    with pytest.raises(ConfigUnsupported, match="vmxnet3"):
        build_argv(d, caps, spec())

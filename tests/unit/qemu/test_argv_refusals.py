"""Every thing that is understood in XML but has no arguments is refused, by its name."""

from __future__ import annotations

import datetime

import pytest

from sterna.config.alias import assign_aliases
from sterna.config.document import parse_domain
from sterna.errors import SternaError
from sterna.qemu.argv import LaunchSpec, build_argv
from support import argv_cases

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
PCI = "<address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>"
MAC = "<mac address='52:54:00:11:22:33'/>"


def disk(
    inner: str = "",
    *,
    kind: str = "file",
    device: str = "disk",
    bus: str = "virtio",
    source: str = "<source file='/a'/>",
    driver: str = "",
    address: str = PCI,
) -> str:
    return (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='raw' {driver}/>{source}"
        f"<target dev='vda' bus='{bus}'/>{inner}{address}</disk>"
    )


def drive(unit: int = 0, target: int = 0) -> str:
    return f"<address type='drive' controller='0' bus='0' target='{target}' unit='{unit}'/>"


def network(protocol: str, inner: str = "<host name='h' port='1'/>", attributes: str = "") -> str:
    source = f"<source protocol='{protocol}' name='n' {attributes}>{inner}</source>"
    return disk(kind="network", source=source)


def card(inner: str = "", *, kind: str = "user", model: str = "virtio") -> str:
    return f"<interface type='{kind}'>{MAC}<model type='{model}'/>{inner}{PCI}</interface>"


def controller(kind: str, model: str, inner: str = "", attributes: str = "") -> str:
    head = f"<controller type='{kind}' index='0' model='{model}' {attributes}>"
    return f"{head}{inner}{PCI}</controller>"


def serial(kind: str, inner: str = "", target: str = "") -> str:
    return f"<serial type='{kind}'>{inner}<target {target} port='0'/></serial>"


DEVICES = {
    "<auth> of disk": disk("<auth username='u'><secret type='ceph' usage='x'/></auth>"),
    "sgio='unfiltered'": disk().replace("device='disk'", "device='lun' sgio='unfiltered'"),
    "device='cdrom'": disk(device="cdrom"),
    "device='lun' on a virtio": disk(device="lun"),
    "device='lun' on bus='ide'": disk(device="lun", bus="ide", address=drive()),
    "disk bus 'sd'": disk(bus="sd"),
    "without a PCI address": disk(address=""),
    "without a drive address": disk(bus="ide", address=""),
    "without a USB address": disk(bus="usb", address=""),
    "there is no scsi controller": disk(bus="scsi", address=drive()),
    "attribute 'queues'": disk(bus="ide", driver="queues='2'", address=drive()),
    "malformed wwn": disk("<wwn>xyz</wwn>"),
    "PCI address in a domain": disk(address=PCI.replace("0x0000", "0x0001")),
    "there is no pci controller": disk(address=PCI.replace("bus='0x00'", "bus='0x07'")),
    "disk source of type 'dir'": disk(kind="dir", source="<source dir='/a'/>"),
    "network disk over 'rbd'": network("rbd"),
    "2 hosts": network("nbd", "<host name='h' port='1'/><host name='i' port='2'/>"),
    "TLS of a network disk": network("nbd", attributes="tls='yes'"),
    "transport 'rdma'": network("nbd", "<host name='h' port='1' transport='rdma'/>"),
    "details of a network disk": network("https", "<host name='h' port='1'/><ssl verify='no'/>"),
    "<metadata_cache>": disk().replace(
        "type='raw' />",
        "type='raw'><metadata_cache><max_size>1</max_size></metadata_cache></driver>",
    ),
    "a backing image of 'vda'": disk(
        "<backingStore type='file'><format type='raw'/></backingStore>"
    ),
    "interface type 'internal'": card("<source name='x'/>", kind="internal"),
    "without a unix socket": card(kind="vhostuser"),
    "<driver> of interface model 'e1000'": card("<driver queues='2'/>", model="e1000"),
    "<ip> of interface type": card("<ip address='1.2.3.4'/>", kind="bridge"),
    "<bandwidth>": card("<bandwidth><inbound average='1'/></bandwidth>"),
    "it has no tap": card("<source bridge='b'/>", kind="bridge"),
    "more than one PCI root": "<controller type='pci' index='1' model='pci-root'/>",
    "IDE controller beside": "<controller type='ide' index='1'/>",
    "controller type 'xenbus'": "<controller type='xenbus' index='0'/>",
    "USB controller model": controller("usb", "dwc2"),
    "ports of USB controller": controller("usb", "ehci", attributes="ports='4'"),
    "SCSI controller model": controller("scsi", "ibmvscsi"),
    "<driver> of SCSI controller": controller("scsi", "lsilogic", "<driver queues='2'/>"),
    "Intel IOMMU on a machine": "<iommu model='intel'/>",
    "IOMMU model 'smmuv3'": "<iommu model='smmuv3'/>",
    "virtio IOMMU without": "<iommu model='virtio'/>",
    "character device type 'nmdm'": serial("nmdm", "<source master='/a' slave='/b'/>"),
    "unix socket without a path": serial("unix", "<source mode='bind'/>"),
    "TLS of a character": serial("tcp", "<source mode='bind' host='a' service='1' tls='yes'/>"),
    "serial target": serial("pty", target="type='spapr-vio-serial'"),
    "console target": "<console type='pty'><target type='xen' port='0'/></console>",
    "channel target": "<channel type='pty'><target type='xen' name='x'/></channel>",
    "spicevmc target name": ("<channel type='spicevmc'><target type='virtio' name='x'/></channel>"),
    "without a virtio-serial address": (
        f"<channel type='pty'><target type='virtio' name='x'/>{drive()}</channel>"
    ),
    "smartcard of certificates": (
        "<smartcard mode='host-certificates'><certificate>a</certificate></smartcard>"
    ),
    "without a ccid address": "<smartcard mode='host'/>",
    "<redirfilter>": (
        "<redirdev bus='usb' type='spicevmc'/><redirfilter><usbdev allow='no'/></redirfilter>"
    ),
    "filesystem type 'template'": "<filesystem type='template'><target dir='x'/></filesystem>",
    "filesystem without source": f"<filesystem type='mount'><target dir='x'/>{PCI}</filesystem>",
    "watchdog model": "<watchdog model='diag288'/>",
    "watchdogs with different actions": (
        "<watchdog model='ib700' action='reset'/>"
        f"<watchdog model='i6300esb' action='none'>{PCI}</watchdog>"
    ),
    "panic device model": "<panic model='pseries'/>",
    "shared memory model": f"<shmem name='a'><model type='ivshmem-doorbell'/>{PCI}</shmem>",
    "<vsock> without": f"<vsock model='virtio'><cid address='4'/>{PCI}</vsock>",
    "<crypto>": "<crypto model='virtio' type='qemu'><backend model='builtin'/></crypto>",
    "<lease>": "<lease><key>k</key></lease>",
    "hostdev type 'scsi'": (
        "<hostdev mode='subsystem' type='scsi'><source><adapter name='x'/></source></hostdev>"
    ),
    "hostdev mode": "<hostdev mode='capabilities' type='misc'><source/></hostdev>",
    "memory device model": "<memory model='virtio-mem'><target><size>1</size></target></memory>",
    "nvdimm without": "<memory model='nvdimm'><target><size>1</size></target></memory>",
    "source of a memory module": (
        "<memory model='dimm'><source><pagesize>4</pagesize></source>"
        "<target><size>1</size></target></memory>"
    ),
    "audio backend 'oss'": "<audio id='1' type='oss'/>",
    "<output> of an audio": "<audio id='1' type='none'><output mixingEngine='no'/></audio>",
    "sound model": "<sound model='pcspk'/>",
    "video model 'xen'": f"<video><model type='xen'/>{PCI}</video>",
    "3D acceleration": (
        f"<video><model type='qxl'><acceleration accel3d='yes'/></model>{PCI}</video>"
    ),
    "driven by vhostuser": (
        f"<video><driver name='vhostuser'/><model type='virtio'/>{PCI}</video>"
    ),
    "graphics type 'rdp'": "<graphics type='rdp'/>",
    "listening on a network": (
        "<graphics type='vnc' port='5900'><listen type='network' network='n'/></graphics>"
    ),
    "passwdValidTo": "<graphics type='vnc' port='5900' passwd='x' passwdValidTo='2030-01-01'/>",
    "secured channels": "<graphics type='spice' port='5900' defaultMode='secure'/>",
    "TLS port": "<graphics type='spice' port='5900' tlsPort='5901'/>",
    "OpenGL": "<graphics type='spice' port='5900'><gl enable='yes'/></graphics>",
    "spice port": "<graphics type='spice' port='-1'/>",
    "input 'mouse' on bus 'xen'": "<input type='mouse' bus='xen'/>",
}

TOP = {
    "<tseg>": "<features><smm><tseg unit='MiB'>8</tseg></smm></features>",
    "<defaultiothread>": "<defaultiothread thread_pool_min='1'/>",
    "maxMemory without slots": "<maxMemory>100000</maxMemory>",
    "automatic NUMA": "<numatune><memory mode='strict' placement='auto'/></numatune>",
    "<interconnects>": (
        "<cpu><numa><cell id='0' cpus='0' memory='1'/><interconnects/></numa></cpu>"
    ),
    "NUMA cell without memory": "<cpu><numa><cell id='0' cpus='0'/></numa></cpu>",
    "<cache> of a NUMA cell": (
        "<cpu><numa><cell id='0' cpus='0' memory='1'><cache level='1'/></cell></numa></cpu>"
    ),
    "CPU cache mode": "<cpu mode='maximum'><cache mode='disable' level='3'/></cpu>",
    "timer 'armvtimer'": "<clock offset='utc'><timer name='armvtimer'/></clock>",
    "rtc timer track": "<clock offset='utc'><timer name='rtc' track='boot'/></clock>",
    "rtc timer tickpolicy": "<clock offset='utc'><timer name='rtc' tickpolicy='merge'/></clock>",
    "pit timer tickpolicy": "<clock offset='utc'><timer name='pit' tickpolicy='merge'/></clock>",
    "basis 'localtime'": "<clock offset='variable' basis='localtime'/>",
    "clock adjustment": "<clock offset='variable' adjustment='reset'/>",
    "<processor>": "<sysinfo type='smbios'><processor/></sysinfo>",
    "sysinfo entry": ("<sysinfo type='smbios'><bios><entry name='what'>x</entry></bios></sysinfo>"),
}

OS = {
    "firmware='efi'": "",
    "format other than raw": "<loader type='pflash' format='qcow2'>/x</loader>",
    "nvram of type 'network'": (
        "<loader type='pflash'>/x</loader><nvram type='network'><source/></nvram>"
    ),
    "serial port to use SGA": "<bios useserial='yes'/>",
    "<dtb>": "<dtb>/x</dtb>",
    "ACPI table": "<acpi><table type='rsdt'>/x</table></acpi>",
    "host's SMBIOS": "<smbios mode='host'/>",
}


def refusal(devices: str = "", *, top: str = "", os: str = "", firmware: str = "") -> str:
    d = parse_domain(
        f"<domain type='qemu'><name>a</name><uuid>{UUID}</uuid><memory unit='MiB'>64</memory>"
        f"<vcpu>1</vcpu>{top}<os {firmware}><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>"
        f"{os}</os><devices>{devices}</devices></domain>"
    )
    assign_aliases(d)
    spec = LaunchSpec(monitor_fd=9, state_dir="/state", now=NOW)
    with pytest.raises(SternaError) as caught:
        build_argv(d, argv_cases.plain_caps(), spec)
    return caught.value.message


@pytest.mark.parametrize("words", DEVICES)
def test_devices(words: str) -> None:
    assert words in refusal(DEVICES[words])


@pytest.mark.parametrize("words", TOP)
def test_the_machine(words: str) -> None:
    assert words in refusal(top=TOP[words], os="<smbios mode='sysinfo'/>")


@pytest.mark.parametrize("words", OS)
def test_booting(words: str) -> None:
    firmware = "firmware='efi'" if words == "firmware='efi'" else ""
    assert words in refusal(os=OS[words], firmware=firmware)


def test_sleep_states_of_a_machine_without_them() -> None:
    d = parse_domain(
        f"<domain type='qemu'><name>a</name><uuid>{UUID}</uuid><memory>65536</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='isapc'>hvm</type></os>"
        "<pm><suspend-to-mem enabled='no'/></pm><devices/></domain>"
    )
    spec = LaunchSpec(monitor_fd=9, state_dir="/state", now=NOW)
    with pytest.raises(SternaError, match="<pm>"):
        build_argv(d, argv_cases.plain_caps(), spec)

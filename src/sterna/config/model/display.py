"""What a person sees, hears and types: graphics, video, sound, audio, input."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.config.codec import Kept, at, child, children, kept, secure_only, status_only
from sterna.config.model.address import Device
from sterna.config.values import INT, NAT, ON_OFF, YES_NO, one_of


@dataclass(slots=True)
class Listen:
    """Where a display server listens. `from_config` marks what the host's configuration filled."""

    type: str = at(
        "@type", one_of("none", "address", "network", "socket"), "address", required=True
    )
    address: str | None = at("@address")
    network: str | None = at("@network")
    socket: str | None = at("@socket")
    from_config: int | None = at("@fromConfig", NAT, when=status_only)


@dataclass(slots=True)
class SpiceChannel:
    name: str | None = at("@name")
    mode: str | None = at("@mode", one_of("any", "secure", "insecure"))


@dataclass(slots=True)
class Graphics:
    """One display server. Port -1 or `autoport` means: one is chosen at start."""

    type: str = at(
        "@type",
        one_of("sdl", "vnc", "rdp", "desktop", "spice", "egl-headless", "dbus"),
        "vnc",
        required=True,
    )
    socket: str | None = at("@socket")
    port: int | None = at("@port", INT)
    tls_port: int | None = at("@tlsPort", INT)
    autoport: bool | None = at("@autoport", YES_NO)
    websocket: int | None = at("@websocket", INT)
    websocket_generated: str | None = at("@websocketGenerated", when=status_only)
    address: str | None = at("@address")
    p2p: bool | None = at("@p2p", YES_NO)
    listen: str | None = at("@listen")
    keymap: str | None = at("@keymap")
    share_policy: str | None = at(
        "@sharePolicy", one_of("allow-exclusive", "force-shared", "ignore")
    )
    power_control: bool | None = at("@powerControl", YES_NO)
    display: str | None = at("@display")
    xauth: str | None = at("@xauth")
    fullscreen: bool | None = at("@fullscreen", YES_NO)
    replace_user: bool | None = at("@replaceUser", YES_NO)
    multi_user: bool | None = at("@multiUser", YES_NO)
    default_mode: str | None = at("@defaultMode", one_of("any", "secure", "insecure"))
    passwd: str | None = at("@passwd", when=secure_only)
    passwd_valid_to: str | None = at("@passwdValidTo", when=secure_only)
    connected: str | None = at("@connected", one_of("fail", "disconnect", "keep"))
    listens: list[Listen] = children("listen", Listen)
    channels: list[SpiceChannel] = children("channel", SpiceChannel)
    image_compression: str | None = at("image@compression")
    jpeg_compression: str | None = at("jpeg@compression")
    zlib_compression: str | None = at("zlib@compression")
    playback_compression: bool | None = at("playback@compression", ON_OFF)
    streaming_mode: str | None = at("streaming@mode", one_of("filter", "all", "off"))
    mouse_mode: str | None = at("mouse@mode", one_of("server", "client"))
    copypaste: bool | None = at("clipboard@copypaste", YES_NO)
    filetransfer: bool | None = at("filetransfer@enable", YES_NO)
    gl: bool | None = at("gl@enable", YES_NO)
    rendernode: str | None = at("gl@rendernode")
    audio: int | None = at("audio@id", NAT)


@dataclass(slots=True)
class VideoModel:
    """Memory sizes in KiB."""

    type: str | None = at(
        "@type",
        one_of(
            "default",
            "vga",
            "cirrus",
            "vmvga",
            "xen",
            "vbox",
            "qxl",
            "parallels",
            "virtio",
            "gop",
            "none",
            "bochs",
            "ramfb",
            unknown="unknown video model '{}'",
        ),
    )
    ram: int | None = at("@ram", NAT)
    vram: int | None = at("@vram", NAT)
    vram64: int | None = at("@vram64", NAT)
    vgamem: int | None = at("@vgamem", NAT)
    heads: int | None = at("@heads", NAT)
    primary: bool | None = at("@primary", YES_NO)
    blob: bool | None = at("@blob", ON_OFF)
    accel3d: bool | None = at("acceleration@accel3d", YES_NO)
    accel2d: bool | None = at("acceleration@accel2d", YES_NO)
    rendernode: str | None = at("acceleration@rendernode")
    resolution_x: int | None = at("resolution@x", NAT)
    resolution_y: int | None = at("resolution@y", NAT)


@dataclass(slots=True)
class VideoDriver:
    name: str | None = at("@name", one_of("default", "qemu", "vhostuser"))
    vgaconf: str | None = at("@vgaconf", one_of("io", "on", "off"))
    iommu: bool | None = at("@iommu", ON_OFF)
    ats: bool | None = at("@ats", ON_OFF)
    packed: bool | None = at("@packed", ON_OFF)
    page_per_vq: bool | None = at("@page_per_vq", ON_OFF)


@dataclass(slots=True)
class Video(Device):
    driver: VideoDriver | None = child("driver", VideoDriver)
    model: VideoModel | None = child("model", VideoModel)


@dataclass(slots=True)
class Codec:
    type: str = at("@type", one_of("duplex", "micro", "output"), "duplex")


@dataclass(slots=True)
class Sound(Device):
    model: str | None = at(
        "@model", one_of("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "ich7")
    )
    codecs: list[Codec] = children("codec", Codec)
    audio: int | None = at("audio@id", NAT)


@dataclass(slots=True)
class Audio:
    """A host audio backend; details of input and output are kept as they are."""

    id: int | None = at("@id", NAT, required=True)
    type: str | None = at(
        "@type",
        one_of(
            "none",
            "alsa",
            "coreaudio",
            "jack",
            "oss",
            "pulseaudio",
            "sdl",
            "spice",
            "file",
            "dbus",
        ),
        required=True,
    )
    timer_period: int | None = at("@timerPeriod", NAT)
    server_name: str | None = at("@serverName")
    driver: str | None = at("@driver")
    path: str | None = at("@path")
    try_mmap: bool | None = at("@tryMMap", YES_NO)
    exclusive: bool | None = at("@exclusive", YES_NO)
    dsp_policy: int | None = at("@dspPolicy", INT)
    input: Kept | None = kept("input")
    output: Kept | None = kept("output")


@dataclass(slots=True)
class InputDriver:
    iommu: bool | None = at("@iommu", ON_OFF)
    ats: bool | None = at("@ats", ON_OFF)
    packed: bool | None = at("@packed", ON_OFF)
    page_per_vq: bool | None = at("@page_per_vq", ON_OFF)


@dataclass(slots=True)
class Input(Device):
    """Mouse, keyboard, tablet, or a host device handed through (passthrough, evdev)."""

    type: str = at(
        "@type",
        one_of(
            "mouse",
            "tablet",
            "keyboard",
            "passthrough",
            "evdev",
            unknown="unknown input device type '{}'",
        ),
        "",
    )
    bus: str | None = at(
        "@bus",
        one_of(
            "ps2",
            "usb",
            "xen",
            "parallels",
            "none",
            "virtio",
            unknown="unknown input bus type '{}'",
        ),
    )
    model: str | None = at(
        "@model", one_of("virtio", "virtio-transitional", "virtio-non-transitional")
    )
    driver: InputDriver | None = child("driver", InputDriver)
    source_evdev: str | None = at("source@evdev")
    source_dev: str | None = at("source@dev")
    source_grab: str | None = at("source@grab")
    source_grab_toggle: str | None = at("source@grabToggle")
    source_repeat: bool | None = at("source@repeat", ON_OFF)

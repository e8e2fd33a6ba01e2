"""What a person sees and hears: display servers, video cards, sound, audio backends, input."""

from __future__ import annotations

from typing import Any

from sterna.config.model import Audio, Graphics, Input, Listen, Sound, Video, VideoModel
from sterna.errors import ConfigUnsupported
from sterna.qemu.argv_build import Build, dumps, escape, refuse, virtio_options

DISPLAY_PORT_BASE = 5900


def audio_backends(build: Build) -> None:
    """Append -audiodev. Without any, sound goes nowhere."""
    for audio in build.d.devices.audios:
        build.opt("-audiodev", dumps(_audiodev(audio)))
    if not build.d.devices.audios:
        build.opt("-audiodev", dumps({"id": "audio1", "driver": "none"}))


def _audiodev(audio: Audio) -> dict[str, Any]:
    if audio.input is not None or audio.output is not None:
        raise refuse("<input> or <output> of an audio backend")
    driver = {"none": "none", "spice": "spice", "file": "wav"}.get(audio.type or "none")
    if driver is None:
        raise refuse(f"audio backend '{audio.type}'")
    node: dict[str, Any] = {"id": f"audio{audio.id or 1}", "driver": driver}
    if audio.timer_period is not None:
        node["timer-period"] = audio.timer_period
    if audio.type == "file" and audio.path is not None:
        node["path"] = audio.path
    return node


def _audio_id(build: Build, number: int | None) -> str:
    if number is None:
        audios = build.d.devices.audios
        number = (audios[0].id if audios else None) or 1
    return f"audio{number}"


def graphics(build: Build) -> None:
    for display in build.d.devices.graphics:
        match display.type:
            case "vnc":
                _vnc(build, display)
            case "spice":
                _spice(build, display)
            case "egl-headless":
                text = "egl-headless"
                if display.rendernode is not None:
                    text += f",rendernode={escape(display.rendernode)}"
                build.opt("-display", text)
            case other:
                raise refuse(f"graphics type '{other}'")


def _listen(display: Graphics) -> Listen:
    if display.listens:
        return display.listens[0]
    if display.socket is not None:
        return Listen(type="socket", socket=display.socket)
    return Listen(type="address", address=display.listen)


def _address(display: Graphics) -> str:
    listen = _listen(display)
    if listen.type == "network" and listen.address is None:
        raise refuse("graphics listening on a network")
    return listen.address or display.listen or "127.0.0.1"


def _vnc(build: Build, display: Graphics) -> None:
    if not build.caps.vnc:
        raise ConfigUnsupported("vnc graphics are not supported with this QEMU")
    listen = _listen(display)
    if listen.type == "socket":
        path = listen.socket or display.socket or f"{build.launch.state_dir}/vnc.sock"
        parts = [f"vnc=unix:{escape(path)}"]
    elif listen.type == "none":
        parts = ["none"]
    else:
        if display.port is None or display.port < DISPLAY_PORT_BASE:
            raise refuse(f"vnc port {display.port}: none was chosen, so it")
        address = _address(display)
        if ":" in address:
            address = f"[{address}]"
        parts = [f"{escape(address)}:{display.port - DISPLAY_PORT_BASE}"]
        if display.websocket is not None:
            parts.append(f"websocket={display.websocket}")
    if display.share_policy is not None:
        parts.append(f"share={display.share_policy}")
    if display.passwd is not None:
        parts.append("password=on")
        _password(build, display, "vnc")
    if display.power_control is not None:
        parts.append(f"power-control={'on' if display.power_control else 'off'}")
    parts.append(f"audiodev={_audio_id(build, display.audio)}")
    build.opt("-vnc", ",".join(parts))
    _keymap(build, display)


def _keymap(build: Build, display: Graphics) -> None:
    if display.keymap is not None:
        build.opt("-k", display.keymap)


def _password(build: Build, display: Graphics, protocol: str) -> None:
    """A password never stands on a command line that everybody can read."""
    arguments: dict[str, Any] = {"protocol": protocol, "password": display.passwd}
    if display.connected is not None:
        arguments["connected"] = display.connected
    build.qmp("set_password", **arguments)
    expires = "never"
    if display.passwd_valid_to is not None:
        raise refuse("passwdValidTo of graphics")
    build.qmp("expire_password", protocol=protocol, time=expires)


def _spice(build: Build, display: Graphics) -> None:
    if not build.caps.spice:
        raise ConfigUnsupported("spice graphics are not supported with this QEMU")
    if display.channels or display.default_mode not in (None, "any"):
        raise refuse("secured channels of spice graphics")
    if display.tls_port is not None and display.tls_port > 0:
        raise refuse("the TLS port of spice graphics")
    if display.gl:
        raise refuse("OpenGL of spice graphics")
    listen = _listen(display)
    if listen.type == "socket":
        path = listen.socket or display.socket or f"{build.launch.state_dir}/spice.sock"
        parts = ["unix", f"addr={escape(path)}"]
    elif listen.type == "none":
        parts = ["port=0"]
    else:
        if display.port is None or display.port < 1:
            raise refuse(f"spice port {display.port}: none was chosen, so it")
        parts = [f"port={display.port}", f"addr={escape(_address(display))}"]
    if display.mouse_mode is not None:
        parts.append(f"agent-mouse={'on' if display.mouse_mode == 'client' else 'off'}")
    if display.passwd is None:
        parts.append("disable-ticketing=on")
    else:
        _password(build, display, "spice")
    for field, name in (
        ("image_compression", "image-compression"),
        ("jpeg_compression", "jpeg-wan-compression"),
        ("zlib_compression", "zlib-glz-wan-compression"),
        ("playback_compression", "playback-compression"),
        ("streaming_mode", "streaming-video"),
    ):
        value = getattr(display, field)
        if value is not None:
            text = escape(value) if isinstance(value, str) else "on" if value else "off"
            parts.append(f"{name}={text}")
    if display.copypaste is False:
        parts.append("disable-copy-paste=on")
    if display.filetransfer is False:
        parts.append("disable-agent-file-xfer=on")
    parts.append("seamless-migration=on")
    build.opt("-spice", ",".join(parts))
    _keymap(build, display)


_PRIMARY = {
    "vga": "VGA",
    "cirrus": "cirrus-vga",
    "vmvga": "vmware-svga",
    "qxl": "qxl-vga",
    "virtio": "virtio-vga",
    "bochs": "bochs-display",
    "ramfb": "ramfb",
}
_SECONDARY = {"qxl": "qxl", "virtio": "virtio-gpu-pci"}


def videos(build: Build) -> None:
    """Append video cards. The first is the one the firmware draws on."""
    for number, video in enumerate(build.d.devices.videos):
        model = video.model or VideoModel()
        if model.type == "none":
            continue
        primary = model.primary if model.primary is not None else number == 0
        driver = (_PRIMARY if primary else _SECONDARY).get(model.type or "")
        if driver is None:
            raise refuse(f"video model '{model.type}' as {'first' if primary else 'further'} card")
        if video.driver is not None and video.driver.name == "vhostuser":
            raise refuse("a video card driven by vhostuser")
        if not build.has_device(driver):
            raise ConfigUnsupported(
                f"domain configuration does not support video model '{model.type}'"
            )
        build.device(_video(build, video, model, driver))


def _video(build: Build, video: Video, model: VideoModel, driver: str) -> dict[str, Any]:
    if model.accel3d:
        if driver not in ("virtio-vga", "virtio-gpu-pci"):
            raise refuse(f"3D acceleration of video model '{model.type}'")
        driver = driver.replace("virtio-vga", "virtio-vga-gl").replace("gpu-pci", "gpu-gl-pci")
    properties: dict[str, Any] = {"driver": driver}
    if model.type == "virtio":
        properties |= virtio_options(video.driver)
    properties["id"] = build.alias(video)
    if model.type in ("qxl", "virtio"):
        properties["max_outputs"] = model.heads or 1
    vgamem = model.vgamem if model.vgamem is not None else model.vram
    if model.type == "qxl":
        properties["ram_size"] = (model.ram or 65536) * 1024
        properties["vram_size"] = (model.vram or 65536) * 1024
        properties["vram64_size_mb"] = (model.vram64 or 0) // 1024
        properties["vgamem_mb"] = (model.vgamem or 16384) // 1024
    elif model.type in ("vga", "vmvga"):
        properties["vgamem_mb"] = (vgamem or 16384) // 1024
    elif model.type == "bochs":
        properties["vgamem"] = (vgamem or 16384) * 1024
    if model.blob is not None:
        properties["blob"] = model.blob
    if model.resolution_x is not None and model.resolution_y is not None:
        properties |= {"xres": model.resolution_x, "yres": model.resolution_y}
    if model.type == "ramfb":
        return properties
    return properties | build.pci(video)


_HDA = {"ich6": "intel-hda", "ich9": "ich9-intel-hda"}
_CODECS = {"duplex": "hda-duplex", "micro": "hda-micro", "output": "hda-output"}
_CARDS = {"ac97": "AC97", "es1370": "ES1370", "sb16": "sb16", "usb": "usb-audio"}


def sounds(build: Build) -> None:
    for sound in build.d.devices.sounds:
        if sound.model in _HDA:
            _hda(build, sound)
        elif sound.model in _CARDS:
            audio = _audio_id(build, sound.audio)
            build.device(
                {
                    "driver": _CARDS[sound.model],
                    "id": build.alias(sound),
                    "audiodev": audio,
                    **build.anywhere(sound),
                }
            )
        else:
            raise refuse(f"sound model '{sound.model}'")


def _hda(build: Build, sound: Sound) -> None:
    alias = build.alias(sound)
    driver = _HDA[sound.model or ""]
    build.device({"driver": driver, "id": alias} | build.pci(sound))
    for number, kind in enumerate([codec.type for codec in sound.codecs] or ["duplex"]):
        build.device(
            {
                "driver": _CODECS[kind],
                "id": f"{alias}-codec{number}",
                "bus": f"{alias}.0",
                "cad": number,
                "audiodev": _audio_id(build, sound.audio),
            }
        )


_USB_INPUT = {"tablet": "usb-tablet", "mouse": "usb-mouse", "keyboard": "usb-kbd"}
_VIRTIO_INPUT = {
    "tablet": "virtio-tablet-pci",
    "mouse": "virtio-mouse-pci",
    "keyboard": "virtio-keyboard-pci",
    "passthrough": "virtio-input-host-pci",
}


def inputs(build: Build) -> None:
    """Append input devices. PS/2 ones are part of the machine."""
    for device in build.d.devices.inputs:
        alias = build.alias(device)
        if device.type == "evdev":
            build.object(_evdev(device, alias))
        elif device.bus == "usb" and device.type in _USB_INPUT:
            build.device({"driver": _USB_INPUT[device.type], "id": alias} | build.usb(device))
        elif device.bus == "virtio" and device.type in _VIRTIO_INPUT:
            properties: dict[str, Any] = {"driver": _VIRTIO_INPUT[device.type]}
            properties |= virtio_options(device.driver)
            properties["id"] = alias
            if device.type == "passthrough":
                properties["evdev"] = device.source_evdev
            build.device(properties | build.pci(device))
        elif device.bus != "ps2":
            raise refuse(f"input '{device.type}' on bus '{device.bus}'")


def _evdev(device: Input, alias: str) -> dict[str, Any]:
    node: dict[str, Any] = {"qom-type": "input-linux", "id": alias, "evdev": device.source_dev}
    if device.source_repeat is not None:
        node["repeat"] = device.source_repeat
    if device.source_grab == "all":
        node["grab_all"] = True
    if device.source_grab_toggle is not None:
        node["grab-toggle"] = device.source_grab_toggle
    return node

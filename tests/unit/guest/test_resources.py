"""What a launch takes from the host, and what it forgets of an earlier life."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from sterna.config import assign_aliases, parse_domain
from sterna.config.model import Chardev
from sterna.errors import ConfigUnsupported
from sterna.guest.resources import (
    Taken,
    copy_nvram,
    read_back_ptys,
    take,
)
from sterna.guest.running import Running
from sterna.qemu.qmp_client import short_address
from support.fake_host import domain_xml, fake_host


def test_terminals_are_read_back_and_the_console_is_the_serial_port() -> None:
    live = parse_domain(domain_xml(devices="<console type='pty'><target type='serial'/></console>"))
    assign_aliases(live)
    read_back_ptys(live, [{"label": "charserial0", "filename": "pty:/dev/pts/3"}])
    serial, console = live.devices.serials[0], live.devices.consoles[0]
    assert serial.path == console.path == console.tty == "/dev/pts/3"
    assert console.alias == serial.alias


def test_nvram_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    template, path = tmp_path / "VARS.fd", tmp_path / "sub" / "web_VARS.fd"
    with pytest.raises(ConfigUnsupported, match="unable to read NVRAM template"):
        copy_nvram(template, path, None)
    template.write_bytes(b"vars")
    copy_nvram(template, path, None)
    assert path.read_bytes() == b"vars"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["web_VARS.fd"]


async def test_files_are_begun_anew_unless_the_guest_is_moving(tmp_path: Path) -> None:
    """Both halves of a moving guest write to the same file."""
    log = tmp_path / "serial.log"
    devices = f"<serial type='file'><source path='{log}'/></serial>"
    async with fake_host(tmp_path) as host:
        live = parse_domain(domain_xml(devices=devices))
        assign_aliases(live)
        running = Running(1, live, tmp_path / "run" / "1-web", tmp_path / "log" / "web.log")
        for incoming, content in ((True, "boot"), (False, "")):
            log.write_text("boot")
            with contextlib.ExitStack() as close:
                taken = Taken(close=close)
                take(host.surroundings, running, taken, incoming=incoming)
                assert list(taken.files) == ["charserial1"]
            assert log.read_text() == content


async def test_a_channel_s_socket_lies_in_the_life_s_directory(tmp_path: Path) -> None:
    devices = "<channel type='unix'><target type='virtio' name='org.a'/></channel>"
    async with fake_host(tmp_path) as host:
        live = parse_domain(domain_xml(devices=devices))
        assign_aliases(live)
        run_dir = tmp_path / "run" / "1-web"
        run_dir.mkdir()
        running = Running(1, live, run_dir, tmp_path / "log" / "web.log")
        with contextlib.ExitStack() as close:
            taken = Taken(close=close)
            take(host.surroundings, running, taken)
            assert list(taken.sockets) == ["charchannel0"]
            channel: Chardev = live.devices.channels[0]
            path = run_dir / "channel/target/org.a"
            assert channel.path == str(path)
            with socket.socket(socket.AF_UNIX) as client, short_address(path) as reachable:
                client.connect(reachable)

"""Connection URIs, as libvirt's tools write them."""

from __future__ import annotations

import pytest

from sterna.client.uri import parse_uri
from sterna.errors import InvalidArg


@pytest.mark.parametrize(
    ("text", "transport", "host", "port", "socket", "open_name"),
    [
        ("qemu:///system", "unix", "", None, "", "qemu:///system"),
        ("qemu:///session", "unix", "", None, "", "qemu:///session"),
        ("QEMU+UNIX:///system?socket=/s", "unix", "", None, "/s", "qemu:///system"),
        ("qemu+tcp://a/system", "tcp", "a", None, "", "qemu:///system"),
        ("qemu+tls://a/system", "tls", "a", None, "", "qemu:///system"),
        ("qemu://a:1/system?pkipath=/p&no_verify=1", "tls", "a", 1, "", "qemu:///system"),
        ("qemu+tcp://[::1]:17000/system", "tcp", "::1", 17000, "", "qemu:///system"),
        ("qemu+ssh://u@h:2222/system?socket=/x&foo=bar", "ssh", "h", 2222, "/x",
         "qemu:///system?foo=bar"),
        ("qemu+tcp://a/system?name=test:///default", "tcp", "a", None, "", "test:///default"),
        ("/run/x.sock", "unix", "", None, "/run/x.sock", "qemu:///system"),
    ],
)  # fmt: skip
def test_forms(text, transport, host, port, socket, open_name):  # noqa: PLR0917  # a table
    uri = parse_uri(text)
    found = (uri.transport, uri.host, uri.port, uri.socket, uri.open_name)
    assert found == (transport, host, port, socket, open_name)


def test_a_root_directory_stands_for_its_socket(tmp_path):
    assert parse_uri(str(tmp_path)).socket == str(tmp_path / "run" / "libvirt-sock")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("xen:///", "not a connection URI"),
        ("web1", "not a connection URI"),
        ("qemu+carrier-pigeon://a/system", "unknown transport 'carrier-pigeon'"),
        ("qemu+unix://host/system", "has no host name"),
        ("qemu+tcp://a:99999/system", "Port out of range"),
    ],
)
def test_what_is_no_uri_is_refused_with_a_reason(text, says):
    with pytest.raises(InvalidArg, match=says.replace("+", r"\+")):
        parse_uri(text)

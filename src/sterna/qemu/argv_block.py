"""Where a disk's bytes are: the protocol node of QEMU's block layer."""

from __future__ import annotations

from typing import Any

from sterna.config.model import DiskSource, NetworkHost
from sterna.qemu.argv_build import refuse


def source_node(kind: str, source: DiskSource) -> dict[str, Any]:
    """Driver and location of a source of a disk `type`, as -blockdev takes them.

    Raises: ConfigUnsupported for what has no such node here.
    """
    if kind == "file" and source.file is not None:
        return {"driver": "file", "filename": source.file}
    if kind == "block" and source.dev is not None:
        return {"driver": "host_device", "filename": source.dev}
    if kind == "network":
        return _network(source)
    raise refuse(f"a disk source of type '{kind}'")


def _network(source: DiskSource) -> dict[str, Any]:
    if source.tls:
        raise refuse("TLS of a network disk")
    match source.protocol:
        case "nbd":
            host = _one_host(source)
            node: dict[str, Any] = {"driver": "nbd", "server": _address(host, "10809")}
            return node | ({"export": source.name} if source.name else {})
        case "http" | "https" | "ftp" | "ftps":
            if source.ssl or source.cookies or source.readahead or source.timeout:
                raise refuse(f"details of a network disk over {source.protocol}")
            host = _one_host(source)
            port = f":{host.port}" if host.port else ""
            query = f"?{source.query}" if source.query else ""
            url = f"{source.protocol}://{host.name}{port}/{source.name or ''}{query}"
            return {"driver": source.protocol, "url": url}
    raise refuse(f"a network disk over '{source.protocol}'")


def _one_host(source: DiskSource) -> NetworkHost:
    if len(source.hosts) != 1:
        raise refuse(f"a network disk over '{source.protocol}' with {len(source.hosts)} hosts")
    return source.hosts[0]


def _address(host: NetworkHost, default_port: str) -> dict[str, Any]:
    if host.transport == "unix" or host.socket is not None:
        return {"type": "unix", "path": host.socket}
    if host.transport not in (None, "tcp"):
        raise refuse(f"transport '{host.transport}' of a network disk")
    return {"type": "inet", "host": host.name, "port": host.port or default_port}

"""Asks a QEMU binary what it can do, once, and remembers the answer on disk.

The binary is started without a machine ("-machine none") and asked over QMP; nothing of a guest
exists then. A cached answer is good as long as binary, its size and its time of change stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sterna.errors import InternalError
from sterna.qemu.caps import CpuExpansion, CpuModel, Machine, QemuCaps
from sterna.qemu.kvm import kvm_usable
from sterna.qemu.process import QemuProcess, last_words
from sterna.qemu.qmp_client import QmpClient
from sterna.qemu.qmp_errors import MonitorGone, MonitorTimeout, QmpError

__all__ = ["kvm_usable", "probe"]

FORMAT = 3
"""Number of the cache's layout. Raise it when what is asked or kept changes."""

VERSIONED_MODEL = re.compile(r"-v[0-9]+$")

START_TIMEOUT_S = 20.0
QUERY_TIMEOUT_S = 10.0


async def probe(binary: str, *, cache_dir: Path | None = None, kvm: bool | None = None) -> QemuCaps:
    """Capabilities of a QEMU binary; from `cache_dir` if it was asked before.

    `kvm` says whether CPU models are asked under KVM as well; None finds out by `kvm_usable`.
    Cost: about 120 ms the first time, 1 ms from the cache.

    Raises: InternalError, with QEMU's own words, if the binary cannot be used.
    """
    if kvm is None:
        kvm = await kvm_usable(binary, cache_dir=cache_dir)
    try:
        stat = os.stat(binary)
    except OSError as error:
        raise InternalError(f"Cannot use emulator {binary}: {error.strerror}") from error
    key = [FORMAT, binary, stat.st_size, stat.st_mtime_ns, kvm]
    cached = None if cache_dir is None else cache_dir / f"qemu-{_digest(binary)}.json"
    if cached is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            head, _, body = cached.read_text(encoding="utf-8").partition("\n")
            if json.loads(head) == key:
                return QemuCaps.from_json(body)
    caps = await _ask(binary, kvm=kvm)
    if cached is not None:
        text = json.dumps(key) + "\n" + caps.to_json()
        await asyncio.to_thread(_write_atomically, cached, text)
    return caps


def _digest(binary: str) -> str:
    return hashlib.sha256(binary.encode()).hexdigest()[:16]


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


@contextlib.asynccontextmanager
async def _started(binary: str, accelerator: str) -> AsyncIterator[QmpClient]:
    """A QEMU with no machine, for the time of the block."""
    log_fd = os.memfd_create("qemu-probe-log", os.MFD_CLOEXEC)
    log_path = Path(f"/proc/self/fd/{log_fd}")
    ours, theirs = socket.socketpair()
    argv = [
        *(binary, "-S", "-no-user-config", "-nodefaults", "-display", "none"),
        *("-machine", f"none,accel={accelerator}"),
        *("-chardev", f"socket,id=monitor,fd={theirs.fileno()}"),
        *("-mon", "chardev=monitor,mode=control"),
    ]
    try:
        try:
            process = QemuProcess.spawn(argv, log_path=log_path, pass_fds=[theirs.fileno()])
        except OSError as error:
            ours.close()
            raise InternalError(f"Cannot run {binary}: {error.strerror}") from error
        finally:
            theirs.close()
        try:
            client = await QmpClient.connect(ours, timeout_s=START_TIMEOUT_S)
            try:
                yield client
            finally:
                client.close()
        except (MonitorGone, MonitorTimeout, QmpError) as error:
            words = last_words(log_path) or error.detail
            raise InternalError(f"Failed to probe QEMU binary {binary}: {words}") from error
        finally:
            process.kill()
            await process.wait_gone()
    finally:
        os.close(log_fd)


async def _ask(binary: str, *, kvm: bool) -> QemuCaps:
    cpus_kvm: tuple[CpuModel, ...] = ()
    host_features_kvm: frozenset[str] = frozenset()
    expansions_kvm: dict[str, CpuExpansion] = {}
    if kvm:
        async with _started(binary, "kvm") as qemu:
            cpus_kvm = _cpus(await qemu.execute("query-cpu-definitions", timeout_s=QUERY_TIMEOUT_S))
            host_features_kvm = await _features(qemu, "host")
            expansions_kvm = await _expansions(qemu)
    async with _started(binary, "tcg") as qemu:

        async def query(name: str, **arguments: Any) -> Any:
            return await qemu.execute(name, arguments, timeout_s=QUERY_TIMEOUT_S)

        async def names(command: str, key: str = "name", **arguments: Any) -> frozenset[str]:
            return frozenset(item[key] for item in await query(command, **arguments))

        return QemuCaps(
            binary=binary,
            version=qemu.version,
            package=qemu.package,
            arch=str((await query("query-target"))["arch"]),
            machines=_machines(await query("query-machines")),
            devices=await names("qom-list-types", implements="device", abstract=False),
            objects=await names("qom-list-types", implements="user-creatable", abstract=False),
            cpus_tcg=_cpus(await query("query-cpu-definitions")),
            cpus_kvm=cpus_kvm,
            host_features_tcg=await _features(qemu, "max"),
            host_features_kvm=host_features_kvm,
            expansions_tcg=await _expansions(qemu),
            expansions_kvm=expansions_kvm,
            migration_capabilities=await names("query-migrate-capabilities", "capability"),
            commands=await names("query-commands"),
            options=await names("query-command-line-options", "option"),
            chardevs=await names("query-chardev-backends"),
            tpm_models=frozenset(await query("query-tpm-models")),
            tpm_types=frozenset(await query("query-tpm-types")),
            kvm_present=bool((await query("query-kvm"))["present"]),
            kvm_usable=kvm,
        )


async def _expansions(qemu: QmpClient) -> dict[str, CpuExpansion]:
    """The models that XML may name, and "max" and "host", spelled out; 1 ms each.

    "EPYC" stands for one of "EPYC-v1", "EPYC-v2", ...: only the former is a name in XML.
    """
    found = {}
    for item in await qemu.execute("query-cpu-definitions", timeout_s=QUERY_TIMEOUT_S):
        name = str(item["name"])
        if VERSIONED_MODEL.search(name):
            continue
        try:
            reply = await qemu.execute(
                "query-cpu-model-expansion",
                {"type": "static", "model": {"name": name}},
                timeout_s=QUERY_TIMEOUT_S,
            )
        except QmpError:
            # "host" without KVM; every model on architectures that can't expand.
            continue
        found[name] = CpuExpansion.from_properties(reply["model"]["props"])
    return found


async def _features(qemu: QmpClient, model: str) -> frozenset[str]:
    """Names of the features that are on in a model, where QEMU can tell (x86, s390, arm)."""
    try:
        reply = await qemu.execute(
            "query-cpu-model-expansion",
            {"type": "full", "model": {"name": model}},
            timeout_s=QUERY_TIMEOUT_S,
        )
    except QmpError:
        return frozenset()
    return frozenset(name for name, value in reply["model"]["props"].items() if value is True)


def _machines(reply: Any) -> tuple[Machine, ...]:
    return tuple(
        Machine(
            name=item["name"],
            alias=item.get("alias"),
            is_default=item.get("is-default", False),
            cpus_max=item["cpu-max"],
            hotpluggable_cpus=item["hotpluggable-cpus"],
            numa_mem_supported=item.get("numa-mem-supported", False),
            deprecated=item.get("deprecated", False),
            default_cpu_type=item.get("default-cpu-type"),
            default_ram_id=item.get("default-ram-id"),
            acpi=item.get("acpi", True),
        )
        for item in reply
        if item["name"] != "none"
    )


def _cpus(reply: Any) -> tuple[CpuModel, ...]:
    return tuple(
        CpuModel(
            name=item["name"],
            type_name=item["typename"],
            unavailable=None
            if "unavailable-features" not in item
            else tuple(sorted(set(item["unavailable-features"]))),
            migration_safe=item.get("migration-safe", False),
            static=item["static"],
            deprecated=item.get("deprecated", False),
            alias_of=item.get("alias-of"),
        )
        for item in reply
    )

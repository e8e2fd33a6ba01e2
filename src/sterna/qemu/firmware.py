"""Which firmware a guest boots: what `firmware='efi'` or a bare loader path means on this host.

Pure: the installed firmware comes as an argument, found by whoever reads QEMU's descriptors
(docs/interop/firmware.json). The rules are libvirt 9.0's, observed: the first descriptor that
serves the machine and has the features asked for is taken; one that needs SMM switches it on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sterna.config.model import DomainDef, Features, Loader, NvramStore, Os, Smm
from sterna.errors import OperationFailed


class FirmwareBuild(Protocol):
    """One installed firmware, as its descriptor tells."""

    @property
    def interfaces(self) -> frozenset[str]: ...
    @property
    def device(self) -> str: ...
    @property
    def executable(self) -> str: ...
    @property
    def nvram_template(self) -> str | None: ...
    @property
    def features(self) -> frozenset[str]: ...
    def serves(self, arch: str, machine: str) -> bool: ...


_INTERFACES = {"efi": "uefi", "bios": "bios"}
_FEATURES = ("secure-boot", "enrolled-keys")


def resolve_firmware(d: DomainDef, installed: Iterable[FirmwareBuild], nvram_dir: str) -> None:
    """Write into a definition that is about to run which images its firmware is made of.

    Afterwards `d.os.loader` has a path and, for UEFI with variables, `d.os.nvram` the guest's own
    copy and the template to make it from. The choice of `firmware=` is gone then, as in libvirt's
    live XML: the destination of a migration must not choose again.

    Args:
        installed: in the order of preference.
        nvram_dir: where guests' variables are kept, as NAME_VARS.fd.

    Raises: OperationFailed if no installed firmware is what was asked for.
    """
    if d.os is None:
        return
    if d.os.firmware is not None:
        _choose(d, d.os, installed)
    loader = d.os.loader
    if loader is None or loader.type != "pflash" or loader.stateless:
        return
    if d.os.nvram is None:
        d.os.nvram = NvramStore()
    nvram = d.os.nvram
    if nvram.source is None and not nvram.path:
        nvram.path = f"{nvram_dir}/{d.name}_VARS.fd"
    if nvram.template is None:
        nvram.template = next(
            (build.nvram_template for build in installed if build.executable == loader.path), None
        )


def _choose(d: DomainDef, os: Os, installed: Iterable[FirmwareBuild]) -> None:
    kind = os.firmware or ""
    build = next((build for build in installed if _suits(d, os, kind, build)), None)
    if build is None:
        raise OperationFailed(f"Unable to find any firmware to satisfy '{kind}'")
    secure = "secure-boot" in build.features and "requires-smm" in build.features
    loader = os.loader or Loader()
    loader.path = build.executable
    if build.device == "flash":
        loader.type = "pflash"
        loader.readonly = True
        loader.secure = True if secure else loader.secure
        if build.nvram_template is not None:
            os.nvram = os.nvram or NvramStore()
            os.nvram.template = os.nvram.template or build.nvram_template
    else:
        loader.type = "rom"
    os.loader = loader
    os.firmware = None
    if "requires-smm" in build.features:
        d.features = d.features or Features()
        d.features.smm = d.features.smm or Smm(state=True)


def _suits(d: DomainDef, os: Os, kind: str, build: FirmwareBuild) -> bool:
    if _INTERFACES.get(kind) not in build.interfaces:
        return False
    if not build.serves(os.arch or "", os.machine or ""):
        return False
    wanted = {feature.name: feature.enabled for feature in os.firmware_features}
    if os.loader is not None and os.loader.secure is not None:
        wanted["secure-boot"] = os.loader.secure
    for name in _FEATURES:
        if wanted.get(name) is not None and wanted[name] != (name in build.features):
            return False
    smm = d.features.smm if d.features is not None else None
    return not ("requires-smm" in build.features and smm is not None and smm.state is False)

"""The guest firmware installed on this host, from the descriptors its packages bring.

Fact: QEMU docs/interop/firmware.json. Descriptors in /etc/qemu/firmware go before those in
/usr/share/qemu/firmware; one of the same name hides the other, an empty one hides it for good.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from sterna.host.files import ROOT, read_text

FOLDERS = ("etc/qemu/firmware", "usr/share/qemu/firmware")


@dataclass(frozen=True, slots=True)
class Firmware:
    """One firmware build.

    Attributes:
        interfaces: "uefi", "bios".
        device: "flash" (executable and nvram template) or "memory" (executable alone).
        executable: path of the code image.
        nvram_template: path of the variables' image to copy for each guest, None if it has none.
        targets: pairs of architecture and machine type pattern ("x86_64", "pc-q35-*").
        features: "secure-boot", "requires-smm", "enrolled-keys", ...
    """

    name: str
    interfaces: frozenset[str]
    device: str
    executable: str
    nvram_template: str | None
    targets: tuple[tuple[str, str], ...]
    features: frozenset[str]

    def serves(self, arch: str, machine: str) -> bool:
        """Tell whether it is meant for a machine type, given by its canonical name."""
        return any(a == arch and fnmatchcase(machine, pattern) for a, pattern in self.targets)

    @property
    def secure(self) -> bool:
        """Whether it enforces secure boot and therefore needs SMM."""
        return "secure-boot" in self.features and "requires-smm" in self.features


def _parse(name: str, text: str) -> Firmware | None:
    try:
        document = json.loads(text)
        mapping = document["mapping"]
        flash = mapping["device"] == "flash"
        template = mapping["nvram-template"]["filename"] if flash else None
        executable = mapping["executable"]["filename"] if flash else mapping["filename"]
        return Firmware(
            name=name,
            interfaces=frozenset(document["interface-types"]),
            device=mapping["device"],
            executable=executable,
            nvram_template=template,
            targets=tuple(
                (target["architecture"], pattern)
                for target in document["targets"]
                for pattern in target["machines"]
            ),
            features=frozenset(document["features"]),
        )
    except (ValueError, KeyError, TypeError):
        # A descriptor of a later kind (a stateless flash without template, say) is not for us.
        return None


def installed_firmware(root: Path = ROOT, folders: Iterable[str] = FOLDERS) -> list[Firmware]:
    """Return the firmware whose code image exists, in the order of preference its packages set."""
    texts: dict[str, str] = {}
    for folder in folders:
        for path in (root / folder).glob("*.json"):
            texts.setdefault(path.name, read_text(path))
    found = (_parse(name, text) for name, text in sorted(texts.items()))
    return [
        firmware
        for firmware in found
        if firmware and (root / firmware.executable.lstrip("/")).is_file()
    ]

"""What a CPU model's name means to a peer that keeps its own table of models: libvirt 9.0.

libvirt's table was made long ago and differs from what QEMU builds today. XML that crosses to such
a peer must therefore name every feature about which the two disagree; where they agree, the
model's name is enough. (Observed: libvirt 9.0's own expansion of each model, beside QEMU 7.2's
under TCG. Models that are not here are the same in both, or newer than the peer.)
"""

from __future__ import annotations

# "-x": QEMU's model has x, the peer's has not; "+x": the other way round.
_DIFFERENCES = """
486 Cooperlake: +vme
pentium pentium2 pentium3: -apic +vme
coreduo: -acpi -ss +vme
n270: -acpi -ss -movbe -lahf_lm +vme
core2duo: -acpi -ss -cx16 -lahf_lm +vme
qemu64: -lahf_lm
Westmere Westmere-IBRS: -pclmuldq -arat
SandyBridge SandyBridge-IBRS: -arat -xsaveopt
IvyBridge IvyBridge-IBRS: -arat -xsaveopt +vme
Haswell-noTSX Haswell-noTSX-IBRS Haswell Haswell-IBRS: -f16c -rdrand -arat -xsaveopt -abm
Broadwell-noTSX Broadwell-noTSX-IBRS Broadwell Broadwell-IBRS: -f16c -rdrand -arat -xsaveopt -abm
Skylake-Client Skylake-Client-IBRS Skylake-Client-noTSX-IBRS: +vme +mpx
Icelake-Server Icelake-Server-noTSX: +vme +mpx
Skylake-Server: -clflushopt -pku +vme +mpx
Skylake-Server-IBRS Skylake-Server-noTSX-IBRS Cascadelake-Server: -pku +vme +mpx
Cascadelake-Server-noTSX: -pku -arch-capabilities -rdctl-no -ibrs-all -skip-l1dfl-vmentry -mds-no
Cascadelake-Server-noTSX: +vme +mpx
Snowridge: -monitor -mpx +vme
athlon: -mca +vme
phenom: -cx16 -popcnt -pdpe1gb -rdtscp -lahf_lm -abm -sse4a -npt
Opteron_G2: +rdtscp
Opteron_G3: -monitor
Opteron_G4 Opteron_G5: -npt -nrip-save
EPYC EPYC-IBPB Dhyana: -monitor -topoext -npt -nrip-save +vme
EPYC-Rome: -monitor -xsaves -topoext +vme
EPYC-Milan: -monitor -topoext +vme
"""

_SWITCHED_OFF = {
    "monitor": frozenset({"Opteron_G3", "EPYC", "EPYC-IBPB", "Dhyana"}),
    "intel-pt": frozenset({"Icelake-Server", "Icelake-Server-noTSX"}),
}


def _table() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    less: dict[str, set[str]] = {}
    more: dict[str, set[str]] = {}
    for line in _DIFFERENCES.split("\n"):
        names, _, differences = line.partition(":")
        for name in names.split():
            for word in differences.split():
                (less if word[0] == "-" else more).setdefault(name, set()).add(word[1:])
    return {
        name: (frozenset(less.get(name, ())), frozenset(more.get(name, ()))) for name in less | more
    }


_TABLE = _table()


def peer_features(name: str, features: frozenset[str]) -> frozenset[str]:
    """Return what a peer takes a model's name for.

    Args:
        features: the model as QEMU builds it under TCG; "hypervisor" is no part of any model.
    """
    less, more = _TABLE.get(name, (frozenset(), frozenset()))
    return (features - less | more) - {"hypervisor"}


def switched_off(name: str) -> list[str]:
    """Return the features that are off in every guest of this model that doesn't ask for them.

    libvirt 9.0 starts QEMU so, and both ends of a migration must build the same CPU.
    """
    return [feature for feature, models in _SWITCHED_OFF.items() if name in models]

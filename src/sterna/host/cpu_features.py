"""The names of x86 CPU features, and how QEMU and Linux spell the same.

The names in XML are libvirt's; QEMU's properties and the flags in /proc/cpuinfo mostly agree with
them up to a sign. The exceptions were found by comparing the three (observed with libvirt 9.0, QEMU
7.2, Linux 6).
"""

from __future__ import annotations

from collections.abc import Set

# In the order of the CPUID leaves that hold them, as the XML lists them. (Intel SDM vol. 2A, CPUID;
# AMD APM vol. 3, appendix E.)
_BY_LEAF = """
1.edx: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 pn clflush ds acpi
       mmx fxsr sse sse2 ss ht tm ia64 pbe
1.ecx: pni pclmuldq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid fma cx16 xtpr pdcm pcid dca
       sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor
6.eax: arat
7.ebx: fsgsbase tsc_adjust sgx bmi1 hle avx2 smep bmi2 erms invpcid rtm mpx avx512f avx512dq rdseed
       adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni
       avx512bw avx512vl
7.ecx: avx512vbmi umip pku ospke waitpkg avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg
       avx512-vpopcntdq la57 rdpid bus-lock-detect cldemote movdiri movdir64b sgxlc pks
7.edx: avx512-4vnniw avx512-4fmaps fsrm avx512-vp2intersect md-clear serialize tsx-ldtrk arch-lbr
       amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp arch-capabilities core-capability ssbd
7.1.eax: avx-vnni avx512-bf16
d.1.eax: xsaveopt xsavec xgetbv1 xsaves xfd
12.eax: sgx1 sgx2 sgx-exinfo sgx-kss sgx-debug sgx-mode64 sgx-provisionkey sgx-tokenkey
14.ecx: intel-pt-lip
80000001.edx: syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm 3dnowext 3dnow
80000001.ecx: lahf_lm cmp_legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs
       xop skinit wdt lwp fma4 tce nodeid_msr tbm topoext perfctr_core perfctr_nb
80000007.edx: invtsc
80000008.ebx: clzero xsaveerptr wbnoinvd ibpb ibrs amd-stibp amd-ssbd virt-ssbd amd-no-ssb
8000000a.edx: npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists
       pause-filter pfthreshold avic v-vmsave-vmload vgif svme-addr-chk
msr10a: rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl taa-no
msrcf: split-lock-detect
"""

FEATURES: tuple[str, ...] = tuple(word for word in _BY_LEAF.split() if not word.endswith(":"))
"""Every feature name an XML of ours may hold, in order."""

NEVER_BUILT = frozenset({"osxsave", "ospke", "cmt", "mbm_total", "mbm_local", "pconfig", "cvt16"})
"""Names that XML may hold and QEMU has no switch for: the guest's own doing (osxsave is on when the
guest's system uses XSAVE), or nothing that a guest can have."""

_ORDER = {name: place for place, name in enumerate(FEATURES)}

_QEMU_SPELLING = {
    "cmp_legacy": "cmp-legacy",
    "ds_cpl": "ds-cpl",
    "fxsr_opt": "fxsr-opt",
    "lahf_lm": "lahf-lm",
    "nodeid_msr": "nodeid-msr",
    "pclmuldq": "pclmulqdq",
    "perfctr_core": "perfctr-core",
    "perfctr_nb": "perfctr-nb",
    "tsc_adjust": "tsc-adjust",
}
_FROM_QEMU = {qemu: name for name, qemu in _QEMU_SPELLING.items()}

# Flags of /proc/cpuinfo that differ by more than "_" for "-".
_CPUINFO_SPELLING = {
    "avx512bitalg": "avx512_bitalg",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "cr8legacy": "cr8_legacy",
    "core-capability": "core_capabilities",
    "decodeassists": "decodeassists",
    "invtsc": "nonstop_tsc",
    "pause-filter": "pausefilter",
    "pclmuldq": "pclmulqdq",
    "sgxlc": "sgx_lc",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "tsc-deadline": "tsc_deadline_timer",
    "tsx-ldtrk": "tsxldtrk",
    "waitpkg": "waitpkg",
}
# The kernel shows one name for a protection, whichever vendor's bit it comes from.
_CPUINFO_INTEL = {"spec-ctrl": "ibrs"}
_CPUINFO_AMD = {"amd-stibp": "stibp", "amd-ssbd": "ssbd"}
_INTEL_ONLY = frozenset({"spec-ctrl", "stibp", "ssbd"})
_AMD_ONLY = frozenset({"ibrs", "ibpb", "amd-stibp", "amd-ssbd"})


def qemu_name(feature: str) -> str:
    """Return QEMU's property for a feature of the XML."""
    return _QEMU_SPELLING.get(feature, feature)


def xml_name(property_name: str) -> str | None:
    """Return the XML's name of a CPU property of QEMU, None for one that is no such feature."""
    name = _FROM_QEMU.get(property_name, property_name)
    return name if name in _ORDER else None


def in_order(features: Set[str]) -> list[str]:
    """Return features in the XML's order; names we don't know come last, by name."""
    return sorted(features, key=lambda name: (_ORDER.get(name, len(_ORDER)), name))


def is_feature(name: str) -> bool:
    """Tell whether a name may stand in a `<feature>`."""
    return name in _ORDER or name in NEVER_BUILT


def from_cpuinfo(flags: frozenset[str], vendor: str) -> frozenset[str]:
    """Return the features that /proc/cpuinfo's flags stand for.

    The kernel leaves out what it found broken or was told to switch off; so do we.
    """
    intel = vendor == "GenuineIntel"
    special = _CPUINFO_INTEL if intel else _CPUINFO_AMD
    foreign = _AMD_ONLY if intel else _INTEL_ONLY
    found = set()
    for name in FEATURES:
        if name in foreign:
            continue
        flag = special.get(name) or _CPUINFO_SPELLING.get(name)
        if (flag or name.replace("-", "_")) in flags or (flag is None and name in flags):
            found.add(name)
    if "xsave" in found:
        # Linux enables XSAVE wherever it shows it, and that sets OSXSAVE.
        found.add("osxsave")
    return frozenset(found)


def from_qemu(properties: frozenset[str]) -> frozenset[str]:
    """Return the features among the properties that are on in a CPU as QEMU expands it.

    The rest are paravirtual bits (kvm-*, vmx-*) and switches of the emulation: no XML names them.
    """
    return frozenset(filter(None, map(xml_name, properties)))

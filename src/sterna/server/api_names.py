"""What people call a procedure: the names of the public API that errors carry.

Clients' users know `virDomainSuspend`, not DOMAIN_SUSPEND. The rule that turns one into the other
was read off the errors of libvirt 9.0 and the method names of its bindings; what does not follow it
is listed.
"""

from __future__ import annotations

import functools

_WORDS = {
    "XML": "XML",
    "CPU": "CPU",
    "OS": "OS",
    "NMI": "NMI",
    "ID": "ID",
    "UUID": "UUID",
    "URI": "URI",
    "PM": "PM",
    "FD": "FD",
    "DHCP": "DHCP",
    "SSH": "SSH",
    "SEV": "SEV",
    "FSFREEZE": "FSFreeze",
    "FSTHAW": "FSThaw",
    "FSTRIM": "FSTrim",
    "FSINFO": "FSInfo",
    "IOTHREAD": "IOThread",
    "NWFILTER": "NWFilter",
    "NWFILTERS": "NWFilters",
}

_ODD = {
    "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY": "virConnectDomainEventRegisterAny",
    "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY": "virConnectDomainEventDeregisterAny",
    "DOMAIN_OPEN_GRAPHICS_FD": "virDomainOpenGraphicsFD",
    "DOMAIN_RESTORE_FLAGS": "virDomainRestoreFlags",
    "DOMAIN_GET_INTERFACE_PARAMETERS": "virDomainGetInterfaceParameters",
}

_QEMU = {
    "DOMAIN_MONITOR_COMMAND": "virDomainQemuMonitorCommand",
    "DOMAIN_MONITOR_COMMAND_WITH_FILES": "virDomainQemuMonitorCommandWithFiles",
    "DOMAIN_ATTACH": "virDomainQemuAttach",
    "DOMAIN_AGENT_COMMAND": "virDomainQemuAgentCommand",
    "CONNECT_DOMAIN_MONITOR_EVENT_REGISTER": "virConnectDomainQemuMonitorEventRegister",
    "CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER": "virConnectDomainQemuMonitorEventDeregister",
}


@functools.cache
def api_name(procedure: str) -> str:
    """`virDomainGetXMLDesc` for DOMAIN_GET_XML_DESC."""
    odd = _ODD.get(procedure) or _QEMU.get(procedure)
    if odd is not None:
        return odd
    return "vir" + "".join(_WORDS.get(w, w.capitalize()) for w in procedure.split("_"))

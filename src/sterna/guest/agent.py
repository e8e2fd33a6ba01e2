"""What is said where the agent in the guest would be needed: it isn't spoken to."""

from __future__ import annotations

from sterna.config import DomainDef
from sterna.errors import AgentUnresponsive, ArgumentUnsupported, OperationInvalid, SternaError

AGENT_CHANNEL = "org.qemu.guest_agent.0"
"""The name of the channel an agent listens on."""


def agent_refusal(live: DomainDef, *, running: bool) -> SternaError:
    """The answer of libvirt 9.0 (observed), which clients know and show well.

    `running` says that the CPUs do: an agent in a paused guest could not answer.
    """
    if not running:
        return OperationInvalid("domain is not running")
    if any(channel.target_name == AGENT_CHANNEL for channel in live.devices.channels):
        return AgentUnresponsive("QEMU guest agent is not connected")
    return ArgumentUnsupported("QEMU guest agent is not configured")

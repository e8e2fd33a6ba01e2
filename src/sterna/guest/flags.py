"""Flags of calls, with the protocol's numbers."""

from __future__ import annotations

from enum import IntFlag


class StartFlags(IntFlag):
    NONE = 0
    PAUSED = 1
    AUTODESTROY = 2
    BYPASS_CACHE = 4
    FORCE_BOOT = 8
    VALIDATE = 16
    RESET_NVRAM = 32


class UndefineFlags(IntFlag):
    NONE = 0
    MANAGED_SAVE = 1
    SNAPSHOTS_METADATA = 2
    NVRAM = 4
    KEEP_NVRAM = 8
    CHECKPOINTS_METADATA = 16
    TPM = 32
    KEEP_TPM = 64


class SaveFlags(IntFlag):
    NONE = 0
    BYPASS_CACHE = 1
    RUNNING = 2
    PAUSED = 4
    RESET_NVRAM = 8


class Affect(IntFlag):
    """Which definition a change is for. CURRENT: the live one if the guest runs, else the other."""

    CURRENT = 0
    LIVE = 1
    CONFIG = 2

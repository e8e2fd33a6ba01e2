"""Values of guests as the wire carries them, where more than one handler needs them."""

from __future__ import annotations

from sterna.guest.jobstats import JobStats
from sterna.rpc.msg_common import TypedParam
from sterna.rpc.typed_params import ParamType, encode_params

_INT_PARAMS = frozenset({"operation", "auto_converge_throttle"})


def encode_job(stats: JobStats) -> list[TypedParam]:
    """Statistics of a job as typed parameters. Nearly all are u64 (libvirt 9.0, observed)."""
    return encode_params((name, value, _job_type(name, value)) for name, value in stats.params())


def _job_type(name: str, value: int | str) -> ParamType:
    if isinstance(value, str):
        return ParamType.STRING
    return ParamType.INT if name in _INT_PARAMS else ParamType.ULLONG

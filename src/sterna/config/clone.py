"""Copies of model objects."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

T = TypeVar("T")


def clone(value: T) -> T:
    """A deep copy of a model object; several times faster than copy.deepcopy."""
    if isinstance(value, list):
        return [clone(one) for one in value]  # type: ignore[return-value]  # T is the list type
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        fresh = cls.__new__(cls)
        for name in _field_names(cls):
            object.__setattr__(fresh, name, clone(getattr(value, name)))
        return fresh
    if isinstance(value, dict):
        return dict(value)  # type: ignore[return-value]  # T is the dict type
    return value


_names: dict[type, tuple[str, ...]] = {}


def _field_names(cls: type) -> tuple[str, ...]:
    found = _names.get(cls)
    if found is None:
        found = _names[cls] = tuple(f.name for f in dataclasses.fields(cls))
    return found

"""Base of all wire messages: immutable values that cost next to nothing to declare.

To a type checker, and to `dataclasses.replace`, `fields` and `asdict`, a message is a frozen
dataclass with slots. It is not made by `dataclasses` because there are some six hundred of them:
the standard decorator takes 0.3 ms and 16 KiB for each, at import, whether or not the message is
ever used (measured with Python 3.11). Here `__init__` and the codec are written on first use.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NoReturn, cast, dataclass_transform


class _Fields:
    """`__dataclass_fields__`, made when somebody asks for it."""

    def __get__(self, instance: object, owner: type[Message]) -> dict[str, Any]:
        made = dataclasses.make_dataclass(owner.__name__, owner.__match_args__)
        return {field.name: field for field in dataclasses.fields(made)}


@dataclass_transform(frozen_default=True)
class _MessageMeta(type):
    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _MessageMeta:
        names = tuple(n for n in namespace.get("__annotations__", ()) if not n.startswith("_"))
        namespace["__slots__"] = names
        namespace["__match_args__"] = names
        return super().__new__(cls, name, bases, namespace)


class Message(metaclass=_MessageMeta):
    """An immutable value with the fields its class annotates, in wire order.

    Messages of one class compare by value and are hashable if their fields are.
    Values are checked when the message is encoded, not when it is made.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]] = cast("dict[str, Any]", _Fields())
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _install_init(type(self))
        # Now the class's own __init__, written below, takes over.
        type(self).__init__(self, *args, **kwargs)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({inner})"

    def __copy__(self) -> Message:
        return self

    def __deepcopy__(self, memo: object) -> Message:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._values()


def _install_init(cls: type[Message]) -> None:
    """Write and compile `cls.__init__`. Setting through the slots gets past `__setattr__`."""
    names = cls.__match_args__
    scope: dict[str, Any] = {f"_set_{n}": getattr(cls, n).__set__ for n in names}
    body = "; ".join(f"_set_{n}(self, {n})" for n in names) or "pass"
    exec(f"def __init__({', '.join(('self', *names))}): {body}", scope)  # noqa: S102 - our own text
    type.__setattr__(cls, "__init__", scope["__init__"])

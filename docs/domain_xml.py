"""Draws the reference page of domain XML from the model that reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from sterna.config.codec import Kept, Spec
from sterna.config.model.domain import Devices, DomainDef, Metadata

INTRODUCTION = """# Domain XML

What a definition may hold. The meaning of each is that of libvirt's domain XML; defaults, implicit
devices and addresses come out as libvirt 9.0's.

- An element or attribute that isn't here is refused by name and line.
- *kept* elements are stored and printed again, and nothing is made of them.
- Something that is here but can't be built with this QEMU, or isn't built yet, is refused when the
  guest starts, by name. Nothing is left out silently.
- A path with `@` is an attribute; *text* without bounds is any text.

Every device can have `<alias name='ua-...'/>` and an `<address type='...'/>`; most can be left to
Sterna.
"""
DEPTH_MAX = 6
OWN_SECTION = (DomainDef, Devices)


def domain_page(note: str) -> str:
    """The whole page."""
    parts = [note, INTRODUCTION]
    parts.append(_section("The domain", "domain", DomainDef))
    for field in dataclasses.fields(Devices):
        spec = _spec(field)
        if spec is not None and isinstance(spec.cls, type):
            parts.append(_section(f"devices/{spec.path}", spec.path, spec.cls))
    return "\n".join(parts).rstrip() + "\n"


def _spec(field: dataclasses.Field[object]) -> Spec | None:
    found = field.metadata.get("xml")
    return found if isinstance(found, Spec) else None


def _section(title: str, element: str, cls: type) -> str:
    rows = [f"| `{path}` | {values} |" for path, values in _rows(element, cls, 0)]
    first = (cls.__doc__ or "").partition("\n\n")[0].replace("\n", " ").strip()
    text = "" if first.startswith(cls.__name__ + "(") else f"{' '.join(first.split())}\n\n"
    return f"## {title}\n\n{text}| where | value |\n|---|---|\n" + "\n".join(rows) + "\n"


def _rows(prefix: str, cls: type, depth: int) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(cls):
        spec = _spec(field)
        if spec is not None:
            yield from _row(prefix, spec, depth)


def _row(prefix: str, spec: Spec, depth: int) -> Iterator[tuple[str, str]]:
    path = spec.path
    if path in ("", "."):
        place = prefix
    else:
        place = prefix + path if path.startswith("@") else f"{prefix}/{path}"
    many = " (any number)" if spec.shape in ("children", "texts") else ""
    match spec.shape:
        case "scalar" | "texts":
            yield place, spec.kind.name.replace("|", "\\|") + many
        case "size":
            yield place, f"size, in {spec.unit} unless `unit` says otherwise"
        case "flag":
            yield place, "there or not"
        case "variants":
            key, classes = spec.cls
            if spec.path != "address":  # every device has one; said once, in the introduction
                yield f"{place}@{key}", "one of " + ", ".join(sorted(classes))
        case _ if spec.cls is Kept or spec.cls is Metadata:
            yield place, "kept"
        case _ if isinstance(spec.cls, type) and spec.cls not in OWN_SECTION:
            yield from _nested(place, spec.cls, many, depth)


def _nested(place: str, cls: type, many: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth >= DEPTH_MAX:
        yield place, f"and so on{many}"
        return
    if many:
        yield place, many.strip(" ()")
    if dataclasses.is_dataclass(cls):
        yield from _rows(place, cls, depth + 1)

"""Damaged definitions don't crash the way from XML to arguments: they are refused or they build."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from sterna.config.alias import assign_aliases
from sterna.config.document import parse_domain
from sterna.errors import SternaError
from sterna.qemu.argv import assign_node_indexes, build_argv
from support import argv_cases

CASES = [argv_cases.load(name) for name in argv_cases.names()]
VALUES = ["", "0", "-1", "1", "7", "99999999999", "0x1f", "on", "off", "yes", "no", "none",
          "virtio", "pci", "usb", "file", "block", "unix", "tcp", "é,=", "raw", "qcow2", "host",
          "1-2,^1", "default", "custom"]  # fmt: skip

damages = st.lists(
    st.tuples(
        st.integers(0, 400), st.sampled_from(["drop", "text", "set", "unset", "twice"]),
        st.integers(0, 8), st.sampled_from(VALUES),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def damage(root: etree._Element, place: int, how: str, which: int, value: str) -> None:
    """Change one element; does nothing where there is nothing to change."""
    elements = [element for element in root.iter() if isinstance(element.tag, str)][1:]
    if not elements:
        return
    element = elements[place % len(elements)]
    names = sorted(element.attrib)
    parent = element.getparent()
    assert parent is not None
    if how == "drop":
        parent.remove(element)
    elif how == "twice":
        parent.append(etree.fromstring(etree.tostring(element)))
    elif how == "text":
        element.text = value
    elif names:
        name = names[which % len(names)]
        if how == "set":
            element.set(name, value)
        else:
            del element.attrib[name]


@given(case=st.sampled_from(CASES), changes=damages)
def test_damage_is_refused_or_builds(
    case: argv_cases.Case, changes: list[tuple[int, str, int, str]]
) -> None:
    root = etree.fromstring(case.xml)
    for change in changes:
        damage(root, *change)
    try:
        d = parse_domain(etree.tostring(root, encoding="unicode"))
        assign_aliases(d)
        assign_node_indexes(d)
        argv = build_argv(d, argv_cases.plain_caps(), case.launch(d))
    except SternaError:
        return
    assert all(isinstance(argument, str) for argument in argv.args)

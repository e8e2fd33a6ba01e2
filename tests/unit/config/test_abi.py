"""What two definitions may differ in: one difference at a time, answered by libvirt 9.0."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest

from sterna.config import check_abi
from sterna.errors import SternaError
from support import corpus

# libvirt prints the number of an enumeration where we print the word.
NUMBERED = "Target controller model "
# libvirt looked at something else first.
EARLIER = {
    "qemu-system-i386": "emulators are the host's affair",
    "does not support configuring the address": "ib700's address is dropped with its model",
    "Only ide and scsi disk support wwn": "wwn",
    "Target domain controller count": "buses are added before they are compared",
}


@functools.cache
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((corpus.DATA / "abi.json").read_text())
    return found


@pytest.mark.parametrize("number", range(len(recorded()["cases"])))
def test_difference_is_judged_as_libvirt_does(number: int) -> None:
    pattern, replacement, is_regex, answer = recorded()["cases"][number]
    source = recorded()["source"]
    if is_regex:
        changed = re.sub(pattern, replacement, source, count=1, flags=re.DOTALL)
    else:
        changed = source.replace(pattern, replacement, 1)
    ours = "ok"
    try:
        check_abi(corpus.completed(source, source), corpus.completed(changed, changed))
    except SternaError as why:
        ours = f"{why.number}/{why.domain} {why}"
    if NUMBERED in answer or any(part in answer for part in EARLIER):
        assert ours != "ok" or any(part in answer for part in EARLIER)
        return
    assert ours == answer


def test_same_machine_is_the_same() -> None:
    for name in corpus.names("inactive"):
        xml = corpus.text("inactive", name)
        check_abi(corpus.completed(xml, xml), corpus.completed(xml, xml))

from __future__ import annotations

import pytest

from sterna.config import DomainDef, parse_domain
from sterna.errors import ConfigUnsupported, NoNetwork
from sterna.guest.unbuilt import refuse_unbuilt


def definition(inside: str) -> DomainDef:
    return parse_domain(
        f"<domain type='qemu'><name>g</name><memory>1024</memory>{inside}"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )


@pytest.mark.parametrize(
    ("inside", "named"),
    [
        ("<cputune><shares>2048</shares></cputune>", "<shares>"),
        ("<cputune><vcpusched vcpus='0' scheduler='idle'/></cputune>", "<vcpusched>"),
        ("<memtune><hard_limit>4096</hard_limit></memtune>", "<memtune>"),
        ("<blkiotune><weight>500</weight></blkiotune>", "<blkiotune>"),
        (
            "<seclabel type='static' model='dac'><label>+1:+1</label></seclabel>",
            "<seclabel type='static'>",
        ),
    ],
)
def test_what_is_not_built_is_refused_by_name(inside: str, named: str) -> None:
    with pytest.raises(ConfigUnsupported, match=f"{named} is not supported"):
        refuse_unbuilt(definition(inside))


def test_what_asks_for_nothing_is_fine() -> None:
    refuse_unbuilt(definition("<memtune/><resource><partition>/machine</partition></resource>"))
    refuse_unbuilt(definition("<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>"))
    refuse_unbuilt(definition("<seclabel type='none' model='dac'/>"))


def test_an_interface_of_a_network_that_is_not_there() -> None:
    inside = "<devices><interface type='network'><source network='lan'/></interface></devices>"
    with pytest.raises(NoNetwork, match="no network with matching name 'lan'"):
        refuse_unbuilt(definition(inside))

"""Memory, vcpus, title, description and metadata: live, for the next start, or both."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.errors import InvalidArg, NoDomainMetadata, OperationInvalid, XmlError
from sterna.guest import modify
from sterna.guest.events import MetadataChangeEvent
from sterna.guest.flags import Affect
from support.fake_host import domain_xml, fake_host

URI = "http://x.y/"


async def test_memory_of_a_stored_definition(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await modify.set_memory(guest, 32 * 1024)
        assert guest.current.current_memory == 32 * 1024
        with pytest.raises(InvalidArg, match="cannot set memory higher than max memory"):
            await modify.set_memory(guest, 65 * 1024)
        await modify.set_memory(guest, 16 * 1024, maximum=True)
        assert (guest.current.memory, guest.current.current_memory) == (16 * 1024, 16 * 1024)
        with pytest.raises(OperationInvalid, match="domain is not running"):
            await modify.set_memory(guest, 1024, Affect.LIVE)


async def test_live_memory_is_the_balloon_s(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        assert guest.current.current_memory == 64 * 1024
        await modify.set_memory(guest, 32 * 1024)
        assert host.launcher.monitor.asked[-1] == ("balloon", {"value": 32 * 1024 * 1024})
        host.launcher.monitor.say("BALLOON_CHANGE", actual=32 * 1024 * 1024)
        assert guest.current.current_memory == 32 * 1024
        with pytest.raises(OperationInvalid, match="cannot resize the maximum memory on an active"):
            await modify.set_memory(guest, 1, maximum=True)
        with pytest.raises(OperationInvalid, match="transient domains do not have any persistent"):
            await modify.set_memory(guest, 1, Affect.CONFIG)
        await guest.destroy()


async def test_vcpus_of_a_stored_definition(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await modify.set_vcpus(guest, 1)
        assert modify.get_vcpus(guest) == 1
        assert modify.get_vcpus(guest, maximum=True) == 2
        with pytest.raises(InvalidArg, match="for the persistent domain: 3 > 2"):
            await modify.set_vcpus(guest, 3)
        await modify.set_vcpus(guest, 4, maximum=True)
        assert (modify.get_vcpus(guest), modify.get_vcpus(guest, maximum=True)) == (1, 4)


async def test_vcpus_are_plugged_in_and_out(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        monitor = host.launcher.monitor
        free = {"type": "qemu64-x86_64-cpu", "props": {"core-id": 0, "socket-id": 1}}
        first = {**free, "props": {"core-id": 0, "socket-id": 0}, "qom-path": "/machine/unattached"}
        monitor.replies["query-hotpluggable-cpus"] = [free, first]
        monitor.replies["query-cpus-fast"] = [
            {"cpu-index": 0, "thread-id": 1},
            {"cpu-index": 1, "thread-id": 2},
        ]
        await modify.set_vcpus(guest, 2)
        assert (
            "device_add",
            {"driver": "qemu64-x86_64-cpu", "id": "vcpu1", "core-id": 0, "socket-id": 1},
        ) in monitor.asked
        assert modify.get_vcpus(guest) == 2
        monitor.replies["query-hotpluggable-cpus"] = [
            {**free, "qom-path": "/machine/peripheral/vcpu1"},
            first,
        ]
        monitor.replies["query-cpus-fast"] = [{"cpu-index": 0, "thread-id": 1}]
        await modify.set_vcpus(guest, 1)
        assert ("device_del", {"id": "vcpu1"}) in monitor.asked
        assert modify.get_vcpus(guest) == 1
        await guest.destroy()


async def test_title_and_description(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        with pytest.raises(NoDomainMetadata, match="Requested metadata element is not present"):
            modify.get_metadata(guest, modify.TITLE)
        await modify.set_metadata(guest, modify.TITLE, "a title")
        await modify.set_metadata(guest, modify.DESCRIPTION, "words\nand words")
        assert modify.get_metadata(guest, modify.TITLE) == "a title"
        assert modify.get_metadata(guest, modify.DESCRIPTION) == "words\nand words"
        with pytest.raises(InvalidArg, match="newlines"):
            await modify.set_metadata(guest, modify.TITLE, "a\nb")
        await modify.set_metadata(guest, modify.TITLE, None)
        with pytest.raises(NoDomainMetadata):
            modify.get_metadata(guest, modify.TITLE)
        assert [e.type for e in host.others if isinstance(e, MetadataChangeEvent)] == [1, 0, 1]


async def test_metadata_elements_by_namespace(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        for text in ("<a><b x='1'/>t</a>", "<c/>"):
            await modify.set_metadata(guest, modify.ELEMENT, text, key="k", uri=URI)
        await modify.set_metadata(guest, modify.ELEMENT, "<d/>", key="o", uri="urn:other")
        assert modify.get_metadata(guest, modify.ELEMENT, URI) == "<c/>"
        stored = (await host.store.definitions())[0].xml
        assert '<k:c xmlns:k="http://x.y/"/>' in stored
        assert '<o:d xmlns:o="urn:other"/>' in stored
        await modify.set_metadata(guest, modify.ELEMENT, None, uri=URI)
        with pytest.raises(NoDomainMetadata):
            modify.get_metadata(guest, modify.ELEMENT, URI)
        assert modify.get_metadata(guest, modify.ELEMENT, "urn:other") == "<d/>"
        with pytest.raises(InvalidArg, match="key"):
            await modify.set_metadata(guest, modify.ELEMENT, "<e/>", uri=URI)


async def test_live_and_config_are_two_definitions(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        await modify.set_metadata(guest, modify.TITLE, "live")
        await modify.set_metadata(guest, modify.TITLE, "stored", affect=Affect.CONFIG)
        assert modify.get_metadata(guest, modify.TITLE) == "live"
        assert modify.get_metadata(guest, modify.TITLE, affect=Affect.CONFIG) == "stored"
        await guest.destroy()
        assert modify.get_metadata(guest, modify.TITLE) == "stored"


async def test_words_that_could_not_be_read_again_are_refused(tmp_path: Path) -> None:
    """A stored definition longer than a document may be would be lost with the daemon's end."""
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        await host.registry.define(domain_xml())
        for affect in (Affect.LIVE, Affect.CONFIG):
            with pytest.raises(XmlError, match="title, description and metadata of more than"):
                await modify.set_metadata(guest, 0, "x" * (1 << 20) + "y", affect=affect)
        with pytest.raises(XmlError, match="metadata element of more than"):
            await modify.set_metadata(
                guest, 2, f"<a>{'x' * (1 << 18)}</a>", key="k", uri="http://x"
            )
        with pytest.raises(XmlError, match="more than"):
            await host.registry.define(
                domain_xml(more="<description>" + "x" * (2 << 20) + "</description>")
            )
        assert guest.current.description is None
        assert guest.definition is not None
        assert guest.definition.metadata is None
        await guest.destroy()

"""A job's figures as progress, and the forecast."""

from __future__ import annotations

from sterna.client.migrate import MigrateOptions
from sterna.client.moving import progress_from
from sterna.rpc.enums import MigrateFlag


def test_the_forecast_divides_what_remains_by_what_is_gained():
    progress = progress_from(
        {"data_remaining": 1000, "memory_bps": 300, "memory_dirty_rate": 25, "memory_page_size": 4}
    )
    assert (progress.rate, progress.dirty_rate, progress.eta_ms) == (300, 100, 5000)


def test_without_gain_no_end_is_named():
    figures = {
        "data_remaining": 1,
        "memory_bps": 10,
        "memory_dirty_rate": 10,
        "memory_page_size": 1,
    }
    assert progress_from(figures).eta_ms is None


def test_ways_of_sending_become_flags_and_parameters():
    options = MigrateOptions(
        parallel=True,
        connections=4,
        compression="zstd",
        compression_level=3,
        tls=True,
        tls_name="n",
        zero_copy=True,
        abort_on_error=True,
        listen_address="::",
        persistent_xml="<x/>",
    )
    flags = MigrateFlag.PARALLEL | MigrateFlag.COMPRESSED | MigrateFlag.TLS | MigrateFlag.ZEROCOPY
    assert options.flags() == flags | MigrateFlag.LIVE | MigrateFlag.ABORT_ON_ERROR
    assert {p.field: (p.type, p.value) for p in options.params()} == {
        "persistent_xml": (7, "<x/>"),
        "listen_address": (7, "::"),
        "compression": (7, "zstd"),
        "tls.destination": (7, "n"),
        "parallel.connections": (1, 4),
        "compression.zstd.level": (1, 3),
    }


def test_options_become_flags_and_parameters():
    options = MigrateOptions(persistent=True, paused=True, name="n", bandwidth_mib_s=7)
    assert options.flags() == MigrateFlag.LIVE | MigrateFlag.PERSIST_DEST | MigrateFlag.PAUSED
    assert {p.field: (p.type, p.value) for p in options.params()} == {
        "destination_name": (7, "n"),
        "bandwidth": (4, 7),
    }

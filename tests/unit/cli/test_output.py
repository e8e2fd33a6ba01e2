"""How numbers and tables are printed."""

from __future__ import annotations

import pytest

from sterna.cli.output import format_bytes, format_ms, print_table


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 30, "5.0 GiB"),
        (9 << 50, "9216.0 TiB"),
    ],
)
def test_bytes(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (7.4, "7 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (61_500, "1 min 2 s"),
        (3_700_000, "1 h 1 min"),
    ],
)
def test_times(ms, text):
    assert format_ms(ms) == text


def test_tables_are_plain_in_a_pipe(capsys):
    print_table(["ID", "NAME"], [["1", "web"], ["-", "database"]], terminal=False)
    assert capsys.readouterr().out == "ID  NAME\n1   web\n-   database\n"


def test_an_empty_table_is_its_heading(capsys):
    print_table(["ID"], [], terminal=False)
    assert capsys.readouterr().out == "ID\n"

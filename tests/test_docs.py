"""The documentation names everything there is: commands, options, settings, errors, tests.

Pages that can be drawn from the code are (`make docs`); the rest is compared with it here.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from sterna.server.settings import TABLE, parser

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
TEST = re.compile(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`")
ELSEWHERE = ("pending", "`make bench`", "the test named beside")
PROMISE = re.compile(r"^\| (P[0-9]+) \|.*\| ([^|]+) \|$")


def page(name: str) -> str:
    return (DOCS / name).read_text()


def test_generated_pages_are_fresh() -> None:
    """Commands, their options, settings and errors: each page is what the code says now."""
    done = subprocess.run(
        [sys.executable, "-m", "docs.build", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + "run `make docs`"


def test_options_of_the_daemon() -> None:
    text = page("reference/sternad.md") + page("reference/settings.md")
    for action in parser()._actions:
        if action.help is not argparse.SUPPRESS and action.option_strings != ["-h", "--help"]:
            assert f"{action.option_strings[-1]}" in text, action.option_strings


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: str(setting.name))
def test_settings_say_what_they_mean(setting: object) -> None:
    meaning = getattr(setting, "meaning", "")
    assert meaning.endswith("."), "a sentence, please"
    assert f"`{getattr(setting, 'name', '')}`" in page("reference/settings.md")


def test_every_page_is_on_a_shelf() -> None:
    index = page("README.md")
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    lost = [name for name in pages if name != "README.md" and f"({name})" not in index]
    assert not lost, f"link these from docs/README.md: {lost}"


@cache
def names_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


@pytest.mark.parametrize(
    "name",
    [
        "SPECIFICATION.md",
        "docs/reference/virsh.md",
        "docs/reference/migrate-flags.md",
        "docs/explanation/migration.md",
    ],
)
def test_named_tests_exist(name: str) -> None:
    missing = []
    for file, function in TEST.findall((REPOSITORY / name).read_text()):
        path = REPOSITORY / file
        if not path.is_file() or (function and function not in names_in(path)):
            missing.append(f"{file}::{function}")
    assert not missing, f"{name} names tests that don't exist: {missing}"


def test_every_promise_has_a_test_or_says_that_it_has_none() -> None:
    promises = [
        found.groups()
        for line in (REPOSITORY / "SPECIFICATION.md").read_text().splitlines()
        if (found := PROMISE.match(line))
    ]
    numbers = [number for number, _ in promises]
    assert len(numbers) > 30
    assert len(set(numbers)) == len(numbers), "a number twice"
    unclear = [
        number for number, held in promises if not (TEST.search(held) or held.startswith(ELSEWHERE))
    ]
    assert not unclear, f"name a test or write 'pending': {unclear}"


FLAG_ROW = re.compile(r"^\| ([A-Z0-9_]+) \| (\d+) \|.*\| (`tests/[^|]+) \|$", re.MULTILINE)
PARAMETER_ROW = re.compile(r"^\| ([a-z_.]+) \| [^|]+ \|.*\| (`tests/[^|]+) \|$", re.MULTILINE)


def test_every_flag_and_parameter_of_a_migration_has_a_row_with_its_test() -> None:
    from sterna.migration.params import TYPES
    from sterna.rpc.enums import MigrateFlag

    text = page("reference/migrate-flags.md")
    flags = {name: int(bit) for name, bit, _test in FLAG_ROW.findall(text)}
    assert flags == {flag.name: int(flag) for flag in MigrateFlag}
    parameters = [name for name, _test in PARAMETER_ROW.findall(text)]
    assert sorted(parameters) == sorted(TYPES)


def test_options_of_migrate_are_those_of_the_commands() -> None:
    """What the table of flags says of `sterna migrate` is what that has."""
    from sterna.cli.commands.migrate import MIGRATE

    known = {name for argument in MIGRATE.arguments for name in argument.names}
    rows = re.findall(
        r"^\| [\w.]+ \| [^|]+ \| [^|]* \| ([^|]*) \|", page("reference/migrate-flags.md"), re.M
    )
    named = {name for cell in rows for name in re.findall(r"--[\w-]+", cell)}
    assert len(named) > 15
    assert named <= known


COMMAND_ROW = re.compile(r"^\| ([a-z-][^|]*?) \| [^|]+ \| (`tests/[^|]+) \|$", re.MULTILINE)


def test_commands_of_virsh_are_run_by_their_tests() -> None:
    """Each command and option of a row stands in the source of the tests that the row names."""
    rows = COMMAND_ROW.findall(page("reference/virsh.md"))
    assert len(rows) > 50
    unseen = []
    for words, tests in rows:
        text = "".join(
            source_of(REPOSITORY / file, function) for file, function in TEST.findall(tests)
        )
        wanted = re.findall(r"--[\w-]+|[a-z][\w-]+", words.replace(", with every filter", ""))
        unseen += [
            f"{word} in {tests}"
            for word in wanted
            if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)
        ]
    assert not unseen, f"commands that their test does not run: {unseen}"


HELPERS = ("tests/qemu/moving.py", "tests/support/host.py")


def source_of(path: Path, function: str) -> str:
    """A test with its decorators, and the helpers it calls."""
    helpers: dict[str, str] = {}
    for file in (*(REPOSITORY / name for name in HELPERS), path):
        helpers |= functions_of(file)
    own = helpers.pop(function)
    called = [text for name, text in helpers.items() if re.search(rf"\b{name}\(", own)]
    return own + "".join(called)


@cache
def functions_of(path: Path) -> dict[str, str]:
    text = path.read_text()
    return {
        node.name: "\n".join(
            ast.get_source_segment(text, part) or "" for part in (*node.decorator_list, node)
        )
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }


PROCEDURE = re.compile(r"\b(?:CONNECT|DOMAIN|NODE)_[A-Z0-9_]+\b")


def test_commands_of_virsh_are_served() -> None:
    """A command on that page works, so each call it makes has a handler."""
    from sterna.server import handlers
    from sterna.server.dispatch import HANDLERS

    assert handlers.__all__
    missing = sorted(set(PROCEDURE.findall(page("reference/virsh.md"))) - set(HANDLERS))
    assert not missing, f"no handler serves: {missing}"

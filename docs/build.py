"""Makes the reference pages that are drawn from the code: `make docs`, or `python -m docs.build`.

A test compares each page with what this makes, so that no command, option, setting or error can be
added without its page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from docs.domain_xml import domain_page
from docs.python_api import python_page
from sterna.cli.exits import Exit
from sterna.cli.main import COMMON
from sterna.cli.registry import COMMANDS
from sterna.errors import Code, SternaError
from sterna.server.settings import reference_table

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by `make docs` from the code: change it there. -->\n"


def cli_page() -> str:
    """Every command of `sterna` with its arguments."""
    lines = [NOTE, "# The command line `sterna`\n"]
    lines += [
        "Every command takes `-c URI` (which host) and `--json`, after its name. Errors are one "
        "sentence on standard error.\n",
        "| exit status | means |\n|---|---|",
    ]
    lines += [f"| {int(status)} | {EXIT_MEANINGS[status]} |" for status in Exit]
    for command in COMMANDS:
        lines.append(f"\n## sterna {command.name}\n\n{command.description}\n")
        lines.append("| argument | |\n|---|---|")
        for argument in (*command.arguments, *COMMON):
            names = ", ".join(f"`{name}`" for name in argument.names)
            metavar = argument.options.get("metavar")
            takes = metavar and argument.names[0].startswith("-")
            shown = f"{names} `{metavar}`" if takes else names
            lines.append(f"| {shown} | {argument.help.replace('|', chr(92) + '|')} |")
        if command.example:
            lines.append(f"\n```sh\n{command.example}\n```")
    return "\n".join(lines) + "\n"


EXIT_MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "the operation failed; the message says what the state is now",
    Exit.USAGE: "the command line is wrong",
    Exit.NO_CONNECTION: "the daemon could not be reached, or the connection was lost",
    Exit.NO_GUEST: "there is no such guest",
    Exit.MIGRATION_FAILED: "the migration failed or was aborted; the guest is where it was",
    Exit.IN_DOUBT: "it is not known where the guest runs; the message says whom to ask",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}


def errors_page() -> str:
    """Every error that clients may see, with its code and class."""
    lines = [
        NOTE,
        "# Errors\n",
        "What a client sees is the opening, a colon and the detail. The Python API raises the "
        "class.\n",
        "| code | name | class in `sterna.errors` | opening |\n|---|---|---|---|",
    ]
    classes = {cls.code: cls for cls in _subclasses(SternaError) if "code" in cls.__dict__}
    for code in sorted(Code):
        if code is Code.OK:
            continue
        cls = classes.get(code)
        name = f"`{cls.__name__}`" if cls else "`UnknownError`"
        opening = cls.opening if cls else ""
        lines.append(f"| {int(code)} | {code.name} | {name} | {opening} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Every setting of `sternad`."""
    return (
        f"{NOTE}\n# Settings of `sternad`\n\n"
        "Keys of the TOML file; those with an option can be said on the command line too, which "
        "then wins. How the daemon is run is on [its page](sternad.md).\n\n" + reference_table()
    )


def _subclasses(cls: type[SternaError]) -> list[type[SternaError]]:
    found = []
    for sub in cls.__subclasses__():
        if sub.__module__ == "sterna.errors":
            found += [sub, *_subclasses(sub)]
    return found


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "settings.md": settings_page,
    "domain-xml.md": lambda: domain_page(NOTE),
    "python-api.md": lambda: python_page(NOTE),
}


def main() -> int:
    """Writes the pages; with --check, only says whether they are what they should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = [name for name, make in PAGES.items() if not _same(REFERENCE / name, make())]
    for name in stale:
        if check:
            sys.stderr.write(f"docs/reference/{name} is not what `make docs` makes\n")
        else:
            (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")
    return 1 if check and stale else 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())

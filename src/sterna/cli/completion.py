"""Shell completion, made from the parser; guests' names are asked of the daemon as you type."""

from __future__ import annotations

import argparse

import shtab

from sterna.cli.main import build_parser
from sterna.cli.registry import COMMANDS

_GUESTS = {
    "bash": "_sterna_guests",
    "zsh": "_sterna_guests",
    "tcsh": "`sterna list --all --names`",
}
_PREAMBLE = {
    "bash": """\
_sterna_guests() {
  compgen -W "$(sterna list --all --names 2>/dev/null)" -- "$1"
}
""",
    "zsh": """\
_sterna_guests() {
  local -a names
  names=(${(f)"$(sterna list --all --names 2>/dev/null)"})
  compadd -a names
}
""",
    "tcsh": "",
}


def completion_script(shell: str) -> str:
    """The script for one shell."""
    parser = build_parser()
    kinds = {"guest": _GUESTS, "file": shtab.FILE}
    for command, sub in _subparsers(parser).items():
        wanted = {
            argument.names[0]: argument.completes
            for definition in COMMANDS
            if definition.name == command
            for argument in definition.arguments
            if argument.completes
        }
        for action in sub._actions:  # argparse offers no other way to its actions
            name = action.option_strings[0] if action.option_strings else action.dest
            if name in wanted:
                action.complete = kinds[wanted[name]]  # type: ignore[attr-defined]  # shtab's mark
    return str(shtab.complete(parser, shell=shell, preamble=_PREAMBLE[shell]))


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Those of commands, by their whole names: some have two words."""
    found = {}
    for action in parser._actions:  # as above
        if isinstance(action, argparse._SubParsersAction):  # as above
            for name, sub in action.choices.items():
                found[name] = sub
                found |= {f"{name} {inner}": below for inner, below in _subparsers(sub).items()}
    return found

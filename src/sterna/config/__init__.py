"""The domain model and its XML: parsing, defaults, addresses, validation. Pure."""

from sterna.config.abi import check_abi
from sterna.config.alias import assign_aliases
from sterna.config.caps import EmulatorFacts
from sterna.config.check import check, check_lifecycle, check_start
from sterna.config.clone import clone
from sterna.config.complete import complete
from sterna.config.document import format_domain, parse_domain
from sterna.config.model.domain import DomainDef

__all__ = [
    "DomainDef",
    "EmulatorFacts",
    "assign_aliases",
    "check",
    "check_abi",
    "check_lifecycle",
    "check_start",
    "clone",
    "complete",
    "format_domain",
    "parse_domain",
]

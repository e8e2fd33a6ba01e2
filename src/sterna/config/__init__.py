"""The domain model and its XML: parsing, defaults, addresses, validation. Pure."""

from sterna.config.document import format_domain, parse_domain
from sterna.config.model.domain import DomainDef

__all__ = ["DomainDef", "format_domain", "parse_domain"]

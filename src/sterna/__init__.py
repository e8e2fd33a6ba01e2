"""Sterna manages QEMU guests on a host and moves them, running, between hosts."""

__version__ = "0.1.0"

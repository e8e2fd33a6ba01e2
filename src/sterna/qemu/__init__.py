"""QEMU: its arguments, monitor, probing and processes."""

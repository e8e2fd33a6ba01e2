"""Sterna, bare QEMU and libvirtd measured beside each other: `make bench`.

Absolute figures move with the machine, so every contender is measured in the same run, on the same
guest, by the same client, and what counts is the ratio. Bare QEMU is the floor: what the job costs
without anybody managing it.
"""

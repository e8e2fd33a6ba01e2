"""Certificates for hosts: a CA of one's own, and files where libvirt and QEMU look for them."""

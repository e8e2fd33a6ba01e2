"""Where devices sit when the definition does not say: libvirt's order and rules, pure."""

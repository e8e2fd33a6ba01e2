"""Facts about this host: node information, capabilities, CPU, memory, network."""

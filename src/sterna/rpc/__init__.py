"""The remote protocol: framing, message types, sessions, keepalive, streams, errors."""

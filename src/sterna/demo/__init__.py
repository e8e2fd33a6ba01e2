"""What `sterna demo` shows: a small Linux guest made on the spot."""

"""The `sterna` command line."""

"""The daemon: listeners, sessions, dispatch."""

"""Procedures to what they do, by area."""

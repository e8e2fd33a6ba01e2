"""Both sides of a migration as state machines without input or output."""

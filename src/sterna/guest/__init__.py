"""A guest's life on one host.

Begin at `actor.Guest`, one object a guest: its snapshot attributes are read without waiting (L6),
its coroutines change it, one at a time (`jobs`). `registry.Registry` holds them all. `launch`,
`stop`, `monitor`, `recover` are the moments of a life; `autokill` ends one with its connection.
"""

"""The one durable state of a host: definitions, live guests, decisions, history.

Begin at `ports.Store`, the contract everybody above codes against; `db.SqliteStore` keeps it in one
SQLite file.
"""

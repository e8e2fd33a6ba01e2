"""The host's one durable state: a SQLite file with definitions, status and decisions."""

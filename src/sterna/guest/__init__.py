"""A guest's life: states, jobs, registry, events, statistics."""

"""Fixtures and settings that every tier uses; fixtures are in support/fixtures.py."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["support.fixtures"]

# The same examples at every run, so that a red run is somebody's change and not the dice.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("STERNA_FUZZ_EXAMPLES", "1000")),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz" if "STERNA_FUZZ_EXAMPLES" in os.environ else "repeatable")

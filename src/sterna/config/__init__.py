"""The domain model and its XML: parsing, defaults, addresses, validation. Pure."""

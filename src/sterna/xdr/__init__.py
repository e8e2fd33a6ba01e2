"""External data representation (RFC 4506): typed messages to bytes and back."""

"""What the tests stand on: daemons, clients, guests of our own, fault injection, leak checks."""

"""Fake upstreams: each speaks a provider's exact wire over real sockets, and all its faults."""

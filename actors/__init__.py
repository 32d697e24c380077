"""The roles: one file per role, each an actor or a worker."""

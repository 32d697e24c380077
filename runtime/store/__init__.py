"""The store: the embedded server that keeps it, and the care that it loses nothing unseen."""

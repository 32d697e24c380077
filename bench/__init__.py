"""How fast it is, beside others doing the same on the same machine. Run by `python -m bench`."""

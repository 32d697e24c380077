"""The programs' and people's side: HTTP in front of the bus. Start at `edge/operation.py`."""

"""Run actors on a bus.

    pull → shard → instance → turn → committer → bus

A message is pulled from the bus by its shard's owner, applied by its instance, and what it
sends is committed as one. Read the files in that order; workers are in worker.py and run.py.
"""

from runtime.actor import Actor, Worker, handler
from runtime.errors import Reject, Retry
from runtime.turn import Turn
from runtime.work import Work

__all__ = ["Actor", "Reject", "Retry", "Turn", "Work", "Worker", "handler"]

"""The error codes of JetStream that matter here, and what each means.

Source: nats-server 2.15, server/errors.json.
"""

from runtime.errors import BusFault, Conflict, Denied, NoRoom, Unavailable, Unknown

INCOMPLETE = 10176
TOO_MANY_OPEN = 10210
_NOT_NOW = 10008
TOO_MANY_RESULTS = 413
DUPLICATE = 10201
UNKNOWN_CONSUMER = 10014
UNKNOWN_STREAM = 10059
NOT_FOUND = 10037

_CONFLICTS = {10071, 10164}
# No leader, no JetStream yet, the stream is offline: it passes.
_PASSING = {10006, _NOT_NOW, 10009, 10039, 10076, 10118}
_NO_PEERS = 10005
_OFFLINE = "peer offline"
_NO_ROOM = {10023, 10047, 10077, 10122}
# In a cluster: it was sent before under the same id, and whether it is stored is being decided.
_IN_PROCESS = 10158


def read_fault(code: int, description: str) -> BusFault:
    """The fault that a refused publish is."""
    if code in _CONFLICTS:
        return Conflict(description)
    if code in _NO_ROOM:
        return NoRoom(description)
    if code in _PASSING:
        return Unavailable(description)
    return Unknown(description) if code == _IN_PROCESS else Denied(code, description)


def read_refusal(code: int, description: str) -> BusFault:
    """The fault that a refused request to the server's API is.

    A cluster that is starting takes the nodes that it has not heard of yet for gone.
    """
    if code == _NOT_NOW or (code == _NO_PEERS and _OFFLINE in description):
        return Unavailable(description)
    return Denied(code, description)

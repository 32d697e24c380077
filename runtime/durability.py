"""What survives what: a killed process, a power cut, a lost disk, a lost node; in plain words.

What the servers do not tell, such as when they sync, is said to be not known.
"""

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from runtime.bus import Bus
from runtime.packet import read_stamp
from runtime.store.disk import LEAST_FREE
from runtime.store.inspection import Found
from runtime.tables import NatsTable

LOW_SPACE = 1024**3
LOW_SHARE = 0.1
"""Of the room for consumers, or on the disk, what must be left."""
CLOCKS_DIFFER = timedelta(seconds=2)
MIB = 1024**2

_MOST_STORED = re.compile(r"^\s*max_file_store:\s*([0-9]+)", re.MULTILINE)


class Finding(NamedTuple):
    """One sentence about the system, and whether it is as it should be; None if not known."""

    good: bool | None
    text: str


def what_survives(table: NatsTable, found: Found, stream: str) -> list[Finding]:
    """A process, a power cut, a disk, a node."""
    config = found.streams[stream]["config"]
    if config.get("storage") != "file":
        return [Finding(False, f"the stream {stream} is in memory: it survives no restart")]
    return [
        Finding(True, "kill -9 of any process: what was acknowledged survives"),
        _power_cut(table),
        *_lost_disk(found.streams[stream], int(config.get("num_replicas", 1))),
    ]


def _power_cut(table: NatsTable) -> Finding:
    if table.url:
        text = "it does if its servers have `sync_interval: always`, which they do not tell"
        return Finding(None, f"power cut: not known whether what was acknowledged survives; {text}")
    if table.sync == "always":
        return Finding(True, "power cut: what was acknowledged survives (nats.sync is always)")
    return Finding(
        False,
        f"power cut: may take what was acknowledged in the last {table.sync};"
        ' set nats.sync = "always"',
    )


def _lost_disk(info: dict[str, Any], replicas: int) -> list[Finding]:
    if replicas == 1:
        return [
            Finding(None, "loss of the disk: nothing survives but backups; there is one replica")
        ]
    peers = (info.get("cluster") or {}).get("replicas") or []
    behind = [str(one["name"]) for one in peers if one.get("offline") or not one.get("current")]
    spare = (replicas - 1) // 2 - len(behind)
    findings = [
        Finding(False, f"replica on {name} is away or behind; it protects nothing now")
        for name in behind
    ]
    text = f"loss of a node with its disk: {max(spare, 0)} of {replicas} may be lost now"
    return [*findings, Finding(spare > 0, text)]


async def what_is_left(bus: Bus, table: NatsTable, found: Found) -> list[Finding]:
    """Room on the disk, in the server, for consumers; and the clocks."""
    account = await bus.api("INFO")
    findings = [*_disk(table, int(account.get("storage", 0))), *_account(account)]
    info = found.streams[bus.stream]
    most = int(info["config"].get("max_consumers", -1))
    count = int(info["state"].get("consumer_count", 0))
    if most > 0:
        text = f"{count} consumers of {bus.stream}, {most} are allowed"
        findings.append(Finding(count < most * (1 - LOW_SHARE), text))
    return [*findings, *_clock(info)]


def _disk(table: NatsTable, stored: int) -> list[Finding]:
    if table.url:
        return [Finding(None, "free disk of the servers: not known from here")]
    data = Path(table.data).resolve()
    usage = shutil.disk_usage(_existing(data))
    share = usage.free / usage.total
    text = f"{usage.free // MIB} MiB ({share:.0%}) free on the disk below {str(data)!r}"
    enough = usage.free > max(LEAST_FREE * 4, min(LOW_SPACE, int(usage.total * LOW_SHARE)))
    findings = [Finding(enough, text)]
    try:
        most = _MOST_STORED.search((data / "server.conf").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return findings
    if most:
        room = int(most[1])
        text = f"{stored // MIB} MiB stored; the server takes up to {room // MIB} until it restarts"
        findings.append(Finding(stored < room * (1 - LOW_SHARE), text))
    return findings


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _account(account: dict[str, Any]) -> list[Finding]:
    most = int((account.get("limits") or {}).get("max_storage", -1))
    if most <= 0:
        return []
    stored = int(account.get("storage", 0))
    text = f"{stored // MIB} of {most // MIB} MiB that this account may store are used"
    return [Finding(stored < most * (1 - LOW_SHARE), text)]


def _clock(info: dict[str, Any]) -> list[Finding]:
    if not info.get("ts"):
        return [Finding(None, "the server's clock: it does not tell the time")]
    apart = abs(datetime.now(UTC) - read_stamp(info["ts"]))
    text = f"the server's clock and ours are {apart.total_seconds():.1f} s apart"
    return [Finding(apart < CLOCKS_DIFFER, text)]

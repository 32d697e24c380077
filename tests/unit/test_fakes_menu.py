"""The menu of the fakes, as documented."""

from pathlib import Path

from actors.fakes.arguments import KINDS
from actors.fakes.upstream import fake

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fakes.md").read_text(encoding="utf-8")


def test_every_fault_is_documented_as_it_describes_itself() -> None:
    missing = {
        f"| `{name}` | {text} |" for kind in KINDS for name, text in fake(kind).menu.items()
    } - set(DOCUMENT.splitlines())

    assert missing == set()

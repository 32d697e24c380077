"""What may not be in the repository: addresses of package indexes, paths of one machine, drift."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ("requirements.txt", "requirements-test.txt")
PINS = re.compile(
    r"(requirements|constraints)[^/]*\.(txt|in)|[^/]*\.lock|[^/]*-lock\.(json|yaml)|pip\.conf|\.npmrc"
)
ADDRESS = re.compile(r"://|^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b", re.M)
MACHINE = re.compile(r"(?<![\w.:@*-])/(root|work|home/\w+|Users/\w+|tmp/venv\w*)/")
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; [^\\]+?)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
    re.M,
)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def pins(name: str) -> dict[str, str]:
    """The version of each distribution in a requirements file."""
    return {normal(found[0]): found[1] for found in PIN.findall(text(ROOT / name))}


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def wanted(*extras: str) -> dict[str, str]:
    """What pyproject.toml pins, for running and for some extras."""
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    found = [re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^ ;]+)", line) for line in lines]
    return {normal(each[1]): each[2] for each in found if each}


def test_pinned_versions_come_without_an_address(tracked: list[Path]) -> None:
    addressed = [p.name for p in tracked if PINS.fullmatch(p.name) and ADDRESS.search(text(p))]

    assert addressed == []


def test_no_file_names_a_path_of_one_machine(tracked: list[Path]) -> None:
    named = [
        f"{path.relative_to(ROOT).as_posix()}: {found[0]}"
        for path in tracked
        for found in MACHINE.finditer(text(path))
    ]

    assert named == []


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_carries_hashes_and_nothing_else_stands_there(name: str) -> None:
    rest = PIN.sub("", text(ROOT / name))
    lines = [line for line in rest.splitlines() if line and not line.startswith("#")]

    assert pins(name)
    assert lines == []


@pytest.mark.parametrize(
    ("name", "extras"),
    [("requirements.txt", ["build"]), ("requirements-test.txt", ["build", "test"])],
)
def test_requirements_are_what_the_project_pins(name: str, extras: list[str]) -> None:
    pinned = pins(name)
    drifted = {
        distribution: f"{version}, but {name} has {pinned.get(distribution)}"
        for distribution, version in wanted(*extras).items()
        if pinned.get(distribution) != version
    }

    assert drifted == {}


def test_no_secret_of_the_composition_has_a_default() -> None:
    named = re.findall(
        r"\$\{(\w*(?:PASSWORD|KEY|SECRET|TOKEN)\b)(:\?)?", text(ROOT / "compose.yaml")
    )

    assert {name for name, _ in named} >= {"RELAY_API_KEY", "NATS_HOST_PASSWORD"}
    assert [name for name, required in named if not required] == []


@pytest.mark.promise("CB-48", "AC-51", "AG-96")
def test_anybody_may_use_it_under_the_mit_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert text.startswith("MIT License")
    assert "WITHOUT WARRANTY OF ANY KIND" in text

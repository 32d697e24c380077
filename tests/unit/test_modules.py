"""The folder of one's own modules: where it is, and what may not be in it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import modules
from runtime.config import load
from runtime.errors import ConfigError
from runtime.modules import add_modules, check_name
from runtime.system import load_class


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = list(sys.path)
    found = tmp_path / "mine"
    found.mkdir()
    yield found
    sys.path[:] = path
    modules._folders.clear()


def test_the_folder_is_found_from_the_configurations_own(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "callboard.toml"
    file.write_text("[host]\nmodules = 'mine'\n")
    monkeypatch.chdir("/")

    assert load(file, {}).host.modules == str(folder.resolve())


def test_a_folder_that_is_not_there_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "callboard.toml"
    file.write_text("[host]\nmodules = 'nowhere'\n")
    with pytest.raises(ConfigError, match=r":2: host\.modules: 'nowhere': there is no folder"):
        load(file, {})


def test_modules_and_packages_in_it_can_be_loaded(folder: Path) -> None:
    (folder / "mine_as_module.py").write_text("from actors.greeter import Greeter\n")
    package = folder / "mine_as_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("from actors.greeter import Greeter\n")
    (folder / "notes.txt").touch()
    (folder / "random").mkdir()
    add_modules(str(folder))
    add_modules(str(folder))

    assert load_class("a", "mine_as_module:Greeter") is load_class(
        "b", "mine_as_package.inner:Greeter"
    )
    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize("name", ["random", "runtime", "actors", "nats", "httpx", "schemas"])
def test_a_module_with_the_name_of_another_is_refused(folder: Path, name: str) -> None:
    (folder / f"{name}.py").touch()
    with pytest.raises(ConfigError, match=f"'{name}' in .* has the name of .*; rename it"):
        add_modules(str(folder))


def test_one_that_came_later_is_refused_when_it_is_wanted(folder: Path) -> None:
    add_modules(str(folder))
    (folder / "json.py").touch()
    (folder / "mine_later.py").write_text("from actors.greeter import Greeter\n")
    with pytest.raises(ConfigError, match="has the name of a module of Python's own"):
        load_class("a", "json.decoder:JSONDecoder")
    check_name("mine_later")

    assert load_class("a", "mine_later:Greeter").__name__ == "Greeter"


def test_without_a_folder_nothing_is_added() -> None:
    before = list(sys.path)
    add_modules("")

    assert sys.path == before

"""Modules of one's own: the folder `host.modules`, from which actor types are loaded.

They come after everything that is installed, so none can take another's place; one that has
the name of another could never be loaded, and is refused.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

from runtime.errors import ConfigError

_folders: list[Path] = []


def add_modules(folder: str) -> None:
    """Let the modules of a folder be imported. Raises ConfigError for a name that is taken."""
    if not folder:
        return
    path = Path(folder).resolve()
    if path not in _folders:
        _folders.append(path)
        sys.path.append(str(path))
    for name in sorted(_names_in(path)):
        check_name(name)


def check_name(module: str) -> None:
    """Raise ConfigError if a module of ours has the name of one that is imported instead."""
    name = module.partition(".")[0]
    for folder in _folders:
        if name in _names_in(folder) and (other := _find_other(name, folder)):
            raise ConfigError(
                f"host.modules: {name!r} in {str(folder)!r} has the name of {other}, which is"
                " imported instead; rename it"
            )


def _names_in(folder: Path) -> set[str]:
    try:
        found = list(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"host.modules: {str(folder)!r}: {error.strerror}") from None
    files = {path.stem for path in found if path.suffix == ".py"}
    return files | {path.name for path in found if (path / "__init__.py").is_file()}


def _find_other(name: str, folder: Path) -> str:
    """What is imported under a name before a folder is looked into, in words."""
    if name in sys.stdlib_module_names:
        return "a module of Python's own"
    elsewhere = [path for path in sys.path if Path(path).resolve() not in _folders]
    spec = PathFinder.find_spec(name, elsewhere)
    return str(spec.origin) if spec is not None and spec.origin else ""

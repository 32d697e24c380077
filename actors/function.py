"""Calls a Python function with an order: coroutines here, plain functions in a thread each."""

import asyncio
import contextlib
import contextvars
import importlib
import inspect
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from runtime.errors import Retry

MOST_THREADS = 64


class FunctionOptions(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="callable",
):
    """`call` is `package.module:function`; it gets the order as a dict, and returns JSON."""

    call: str

    def __post_init__(self) -> None:
        load_function(self.call)


def load_function(path: str) -> Callable[[Any], Any]:
    """Import `package.module:function`; raises ValueError with what is wrong with it."""
    module_name, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # a module may raise anything while it is imported
        raise ValueError(
            f'call = "{path}": cannot load it (expected "package.module:function"): {error}'
        ) from error
    if not callable(found):
        raise ValueError(f'call = "{path}": {found!r} is not a function')
    return found  # type: ignore[no-any-return]  # callable() says so


class Function:
    """A function that does orders, `do(order)` returning what it returned."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._function = load_function(path)
        self._threads = 0

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Nothing to end: a thread cannot be."""

    async def do(self, order: dict[str, Any]) -> Any:
        """Call it; raises what it raises."""
        if inspect.iscoroutinefunction(self._function):
            result = self._function(order)
        else:
            result = await self._in_thread(order)
        if not inspect.isawaitable(result):
            return result
        try:
            return await result
        except SystemExit as error:
            # It would end the whole host, with everybody's jobs.
            raise RuntimeError(f"{self.path} called exit({error.code!r})") from None

    async def _in_thread(self, order: dict[str, Any]) -> Any:
        """Call it in a daemon thread: one that hangs must not keep the host from ending."""
        if self._threads >= MOST_THREADS:
            raise Retry(f"{self.path}: {self._threads} earlier calls have not ended yet")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def settle(result: Any, error: BaseException | None) -> None:
            self._threads -= 1
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(_as_exception(error, self.path))

        def work() -> None:
            result, error = None, None
            try:
                result = context.run(self._function, order)
            except BaseException as raised:  # whatever it is, it is the attempt's failure
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(settle, result, error)

        self._threads += 1
        threading.Thread(target=work, name=self.path, daemon=True).start()
        return await future


def _as_exception(error: BaseException, path: str) -> Exception:
    """What a future can carry: neither an exit nor a StopIteration."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"{path} raised {error!r}")

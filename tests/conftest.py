"""How the tests are dealt to two processes: what takes longest begins first, and files that need
the same services run in one process, so that these start once."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from services.common.packages import lighter

#: Folders whose tests share services, but for the files that start their own.
_SHARED = {
    "e2e": {"test_custom_teacher.py", "test_mcp.py", "test_several.py", "test_traces.py"},
    "ui": {"test_behind_a_proxy.py", "test_page.py"},
}
#: Folders and files by how long they take, the longest first.
_LONGEST = (
    "e2e",
    "ui/test_page.py",
    "ui",
    "e2e/test_mcp.py",
    "fuzz/test_rest.py",
    "generator/test_levels.py",
    "generator/test_samplers.py",
    "orchestrator/test_keys.py",
    "benchmarks/test_families.py",
    "e2e/test_traces.py",
    "e2e/test_custom_teacher.py",
)
_TESTS = Path(__file__).parent

# Imports make millions of objects that stay: nobody looks through them for garbage.
gc.disable()
_importing = contextlib.ExitStack()
_importing.enter_context(lighter())


def pytest_unconfigure() -> None:
    # The process that deals the tests to others collects none.
    _importing.close()


def pytest_collection_finish() -> None:
    _importing.close()
    gc.collect()
    gc.freeze()
    gc.enable()


def _together(file: Path) -> str:
    """The name of the tests that run in one process with this file's."""
    folder, _, name = file.as_posix().partition("/")
    return folder if name not in _SHARED.get(folder, {name}) else file.as_posix()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(_LONGEST)}

    def place(item: pytest.Item) -> int:
        return places.get(_together(item.path.relative_to(_TESTS)), len(places))

    items.sort(key=place)


class _Dealing(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _together(Path(file).relative_to(_TESTS.name))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Dealing:
    return _Dealing(config, log)

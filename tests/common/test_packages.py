"""Imports without what libraries do at their import and nobody needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from services.common import packages
from services.common.packages import Distributions, lighter


def test_what_is_installed_is_read_when_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, whole = [], packages._installed()

    def read() -> Mapping[str, list[str]]:
        reads.append(True)
        return whole

    monkeypatch.setattr(packages, "_installed", read)
    installed = Distributions()
    assert not reads
    assert dict(installed) == whole
    assert "no_such_package" not in installed
    assert len(reads) == 1


def test_a_module_is_changed_when_it_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("odd_part", "even_part"):
        (tmp_path / f"{name}.py").write_text("value = 1")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    changes = {"odd_part": lambda module: setattr(module, "value", module.value + 1)}
    monkeypatch.setattr(packages, "_CHANGES", changes)
    with lighter():
        assert import_module("odd_part").value == 2
        assert import_module("even_part").value == 1
    monkeypatch.delitem(sys.modules, "odd_part")
    assert import_module("odd_part").value == 1


def test_what_is_changed_is_there() -> None:
    """Else a newer library does it elsewhere, and starts are slow again."""
    # They may have been imported before: the tests' own imports are lighter, too.
    with lighter():
        reader = import_module("transformers.utils.import_utils").create_import_structure_from_path
        stubs = import_module("gradio.component_meta").create_or_modify_pyi
    assert reader.cache_info().maxsize is None
    assert stubs.__module__ == packages.__name__

"""What libraries do at their import and nobody here needs: reading all that is installed, or the
same files twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

#: The real one, while another is in its place.
_installed = metadata.packages_distributions


class Distributions(Mapping[str, list[str]]):
    """``importlib.metadata.packages_distributions()``, read when it is first looked at. diffusers
    asks for it at its import, and looks at it only for packages that have another name there."""

    @cached_property
    def _read(self) -> Mapping[str, list[str]]:
        return _installed()

    def __getitem__(self, package: str) -> list[str]:
        return self._read[package]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


@contextmanager
def lighter() -> Iterator[None]:
    """For imports meanwhile: what ``_CHANGES`` says of a module is done when it was imported, and
    what is installed is read when it is looked at."""
    finder, before = _Finder(), metadata.packages_distributions
    sys.meta_path.insert(0, finder)
    metadata.packages_distributions = Distributions
    try:
        yield
    finally:
        metadata.packages_distributions = before
        sys.meta_path.remove(finder)


def _read_once(module: ModuleType) -> None:
    """transformers reads what each of its 559 folders of models exports, twice, and keeps the last
    128; so it keeps all. It looks at every line of a file for the list of its exports, so it gets
    only what comes from there on."""
    name = "create_import_structure_from_path"
    reader = getattr(getattr(module, name, None), "__wrapped__", None)
    if reader is not None:
        setattr(module, name, cache(reader))
    exports = getattr(module, "fetch__all__", None)
    if exports is not None:
        module.fetch__all__ = lambda text: exports(text[text.rfind("\n__all__") + 1 :])  # type: ignore[attr-defined]


def _write_no_stubs(module: ModuleType) -> None:
    """gradio writes stubs beside its sources, for which it parses the source of each component;
    that is two fifths of its import."""
    module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]


_CHANGES: Mapping[str, Callable[[ModuleType], None]] = {
    "transformers.utils.import_utils": _read_once,
    "gradio.component_meta": _write_no_stubs,
}


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _CHANGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _CHANGES[module.__name__](module)

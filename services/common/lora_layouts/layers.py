"""A layer of a LoRA file, and the modules of diffusers' denoiser that it changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """The modules that one layer holds, stacked along its output.

    ``shares`` says how the output's rows divide among them. ``swapped``: the two halves of the
    output are in the other order.
    """

    modules: tuple[str, ...]
    shares: tuple[int, ...] = (1,)
    swapped: bool = False


#: Layers by name.
Layers = Mapping[str, Layer]

#: A layout: makes the layers, by the layout's names for them, from the names of the denoiser's
#: modules. Names have dots; files may have underscores instead.
Layout = Callable[[Collection[str]], Layers]


def fused(*modules: str, shares: tuple[int, ...] | None = None) -> Layer:
    return Layer(modules, shares or (1,) * len(modules))


def blocks(
    original: str, diffusers: str, layers: Layers, modules: Collection[str]
) -> dict[str, Layer]:
    """The layers of each block ``<original>.<n>``, whose name in diffusers is
    ``<diffusers>.<n>``."""
    numbers = sorted(
        {
            int(number)
            for name in modules
            if name.startswith(f"{diffusers}.")
            and (number := name.removeprefix(f"{diffusers}.").partition(".")[0]).isdigit()
        }
    )
    return {
        f"{original}.{number}.{name}": Layer(
            tuple(f"{diffusers}.{number}.{module}" for module in layer.modules),
            layer.shares,
            layer.swapped,
        )
        for number in numbers
        for name, layer in layers.items()
    }


def outer(table: Mapping[str, str], modules: Collection[str]) -> dict[str, Layer]:
    """The layers outside the blocks, as far as the model has them."""
    known = frozenset(modules)
    return {name: Layer((module,)) for name, module in table.items() if module in known}


def held(layers: Layers) -> list[str]:
    """The modules of all these layers."""
    return [module for layer in layers.values() for module in layer.modules]


def each(block: str, count: int, layers: Iterable[str]) -> Iterator[str]:
    """Names of the modules in ``count`` blocks."""
    names = list(layers)
    return (f"{block}.{number}.{layer}" for number in range(count) for layer in names)

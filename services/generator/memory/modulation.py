"""What FLUX's adaptive norms make of prompt and timestep, kept instead of their weights.

Scale, shift and gate of each block are a linear layer's output for an embedding of timestep,
guidance and pooled prompt (Peebles and Xie, 2023, arXiv 2212.09748). These layers have a quarter of
FLUX's weights, and a job needs their outputs for a handful of embeddings only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import Linear, Module

from services.generator.adapters.adapted import Adapted
from services.generator.memory.forwards import replace
from services.generator.memory.host_weights import HostWeights

_NORMS = ("AdaLayerNormZero", "AdaLayerNormZeroSingle", "AdaLayerNormContinuous")

#: Of outputs, in the host's memory. One image of FLUX has 2.1 MB a step.
_MOST_BYTES = 1024**3

#: The embedder's arguments.
Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Aim:
    """What the denoiser is about to be run with: entry ``index`` of ``schedule()``, which has the
    embedder's arguments at each index. ``key`` and the very tensor ``prompt`` tell the schedule
    from others."""

    prompt: torch.Tensor
    key: tuple[Any, ...]
    index: int
    schedule: Callable[[], Iterable[Inputs]]


class _Outputs:
    """Stands for the embedding in the denoiser's forward pass: the output of each norm's linear
    layer, [batch, width]. A graph keeps it, so a block that is computed again finds it."""

    def __init__(self, each: Sequence[torch.Tensor]) -> None:
        self.each = each

    def to(self, *_: Any) -> _Outputs:
        return self


class Modulation:
    """The linear layers in the adaptive norms of ``denoiser``; ``embedder`` makes their input.

    While they are away, their weights are in the host's memory, and come to the device one after
    the other: once for a prompt and a schedule. With a LoRA on one of them, or on the embedder,
    the layers compute as ever, and their weights come in each pass.
    """

    def __init__(self, denoiser: Module, embedder: Module, device: torch.device) -> None:
        self._device = device
        self._embedder = embedder
        self._norms: list[Any] = [
            norm for norm in denoiser.modules() if type(norm).__name__ in _NORMS
        ]
        self._weights: HostWeights | None = None
        self._undo: list[Callable[[], None]] = []
        self._kept: OrderedDict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._aim: Aim | None = None

    def leave(self) -> None:
        """Puts the weights away."""
        if self._weights is not None:
            return
        linears = [_base(norm.linear) for norm in self._norms]
        self._weights = HostWeights(linears, self._device)
        self._undo = [replace(self._embedder, self._embed)]
        for place, (norm, linear) in enumerate(zip(self._norms, linears, strict=True)):
            self._undo.append(replace(norm.silu, _unless_made))
            self._undo.append(replace(linear, partial(self._run, place)))

    def come(self) -> None:
        """Takes the weights back to the device, while no graph waits for its backward pass."""
        if self._weights is None:
            return
        for undo in self._undo:
            undo()
        self._weights.come()
        self._weights = None
        self._kept.clear()

    def aim(self, aim: Aim) -> None:
        """To be called before the denoiser is."""
        self._aim = aim

    def _embed(self, embed: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Any:
        aim, self._aim = self._aim, None
        if aim is None or self._adapted():
            return embed(*inputs)
        key = (id(aim.prompt), *aim.key)
        if key not in self._kept:
            # With the prompt, so that no other tensor can have its id.
            self._kept[key] = self._made(embed, aim.schedule()), aim.prompt
            while len(self._kept) > 1 and self._bytes() > _MOST_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        outputs_NBW, _ = self._kept[key]
        row_BW = outputs_NBW[aim.index].to(self._device, non_blocking=True)
        widths = [_base(norm.linear).out_features for norm in self._norms]
        return _Outputs(torch.split(row_BW, widths, dim=1))

    @torch.no_grad()
    def _made(self, embed: Callable[..., torch.Tensor], schedule: Iterable[Inputs]) -> torch.Tensor:
        """[index, batch, width], all layers side by side."""
        embeddings = [embed(*inputs) for inputs in schedule]
        made = []
        for norm in self._norms:
            linear = _base(norm.linear)
            assert self._weights is not None
            with self._weights.here(linear):
                # One after the other: in one product of matrices they would be rounded otherwise.
                rows = [
                    Linear.forward(linear, norm.silu(embedding).to(linear.weight.dtype))
                    for embedding in embeddings
                ]
                made.append(torch.stack(rows))
        outputs = torch.cat(made, dim=2).to("cpu")
        locked = self._device.type == "cuda" and not isinstance(outputs, FakeTensor)
        return outputs.pin_memory() if locked else outputs

    def _run(self, place: int, forward: Callable[..., torch.Tensor], x: Any) -> torch.Tensor:
        if isinstance(x, _Outputs):
            return x.each[place]
        assert self._weights is not None
        with self._weights.here(_base(self._norms[place].linear)):
            return forward(x)

    def _adapted(self) -> bool:
        """Whether a LoRA is on that changes what a norm makes of its prompt and timestep."""
        layers = [self._embedder, *(norm.linear for norm in self._norms)]
        return any(_is_on(part) for layer in layers for part in layer.modules())

    def _bytes(self) -> int:
        return sum(outputs.nbytes for outputs, _ in self._kept.values())


def _unless_made(forward: Callable[..., torch.Tensor], x: Any) -> Any:
    return x if isinstance(x, _Outputs) else forward(x)


def _base(layer: Any) -> Linear:
    """The layer without adapters."""
    base: Linear = getattr(layer, "base_layer", layer)
    return base


def _is_on(part: Module) -> bool:
    return isinstance(part, Adapted) and bool(part.on)

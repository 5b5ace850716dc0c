"""How often a step's host waits for the device: where it reads a value of a tensor, or copies one
to the host. On a GPU each is a gap in its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dualprocess.v1 import generator_pb2 as pb
from services.common.device import DeviceThread
from services.common.errors import NonFinite
from services.generator import training as training_module
from services.generator.families.base import GeneratorFamily
from services.generator.step import run_step
from services.generator.training import Training
from tests.generator.bright import bright
from tests.generator.rows import ROWS, Row
from tests.generator.specs import optimize_spec
from tests.generator.test_families import loaded

#: Operators whose result's shape or value is known only once the device has computed it.
_WAIT = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"}


class Reads(TorchDispatchMode):
    """Values that the host needs, by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name in ("index", "index_put_", "index_put") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in _WAIT or by_mask:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Copies to the host: here the device is the CPU too, so they are known by how they are asked
    for. The family's device is an object, the host is called "cpu"."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("cpu", "tolist") or (name == "to" and "cpu" in args[1:]):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def spec_of(row: Row) -> pb.OptimizeSpec:
    spec = optimize_spec(steps=3)
    # Several steps of the sampler, if the model does several.
    spec.image.CopyFrom(row.images[0])
    spec.lora.target_modules[:] = row.tiny.lora.target_modules
    spec.guard.anchor = 1.0
    return spec


#: Image and gradient are tested on the host, where they are for the wire anyway.
_OF_THE_WIRE = {"_local_scalar_dense": 2}
#: The sampler makes its noise levels on the host, and says so.
_ON_THE_HOST = {"sdxl-turbo": 1}


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_step_waits_for_its_images_and_for_its_figures(
    row: Row, device: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "fuses", lambda _: True)
    spec = spec_of(row)
    training = Training(loaded(row), spec, "waits")
    await run_step(device, training, bright, spec, 0)

    def begun() -> tuple[Reads, Copies]:
        reads, copies = Reads(), Copies()
        reads.__enter__()
        copies.__enter__()
        return reads, copies

    # Modes belong to a thread.
    reads, copies = await device.run(begun)
    await run_step(device, training, bright, spec, 1)
    await device.run(lambda: (copies.__exit__(None, None, None), reads.__exit__(None, None, None)))
    training.close()
    assert dict(reads.counts) == _OF_THE_WIRE
    assert copies.counts["tolist"] == 1, "the norm and what changed, in one"
    assert copies.counts["to"] - _ON_THE_HOST.get(row.preset, 0) == 1, "the images"
    assert copies.counts["cpu"] == 0


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_gradient_that_is_not_finite_changes_nothing(
    load: Callable[[str], GeneratorFamily], monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    """Neither weights nor AdamW's state, though the fused AdamW is queued before the norm is
    read."""
    monkeypatch.setattr(training_module, "fuses", lambda _: fused)
    spec = optimize_spec(steps=3)
    training = Training(load("flux-schnell"), spec, "job")

    def backward(step: int, scale: float) -> None:
        made = training.forward(step, 0)
        training.backward(made.images, torch.full_like(made.images, scale))

    backward(0, 1e-3)
    training.update()
    before = training.checkpoint(1).tensors
    backward(1, float("inf"))
    with pytest.raises(NonFinite, match="gradient is not finite"):
        training.update()
    training.skip()
    after = training.checkpoint(1).tensors
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    backward(2, 1e-3)
    assert training.update().grad_norm > 0
    latest = training.checkpoint(2).tensors
    assert all(latest[name] == 2 for name in latest if name.endswith("/step"))
    assert not all(torch.equal(latest[name], before[name]) for name in before)
    training.close()


def test_a_job_goes_on_with_the_other_adamw(
    load: Callable[[str], GeneratorFamily], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of a GPU on a CPU, and back."""
    spec = optimize_spec(steps=3)
    ends = []
    for kinds in ((False, True), (True, False)):
        file = None
        for step, fused in enumerate(kinds):
            monkeypatch.setattr(training_module, "fuses", lambda _, fused=fused: fused)
            spec.resume.step = step
            training = Training(load("flux-schnell"), spec, "job", resume=file)
            made = training.forward(step, 0)
            training.backward(made.images, torch.full_like(made.images, 1e-3))
            training.update()
            taken = training.checkpoint(step + 1)
            file = taken.write()
            training.close()
        ends.append(taken.tensors)
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-3, atol=1e-6)

"""A checkpoint, from which a job can go on: everything that steps change.

Random choices are functions of seed and step (``draws``), so that is the LoRA and AdamW's state.
A safetensors file: each parameter by its name, its state as ``<name>/exp_avg``,
``<name>/exp_avg_sq`` and ``<name>/step``, float32; in the metadata how many steps were done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from services.common.errors import BadCheckpoint
from services.generator.lora.safetensors_header import metadata

Parameters = Mapping[str, torch.Tensor]

_STATE = ("exp_avg", "exp_avg_sq", "step")
_STEPS_DONE = "dualprocess.steps_done"


@dataclass(frozen=True)
class Checkpoint:
    """``tensors`` as in the file, on the CPU, in memory of their own."""

    steps_done: int
    tensors: Mapping[str, torch.Tensor]

    def write(self) -> bytes:
        """The file. The same checkpoint gives the same bytes."""
        # A single entry, since the library writes several entries in a random order.
        return save(dict(self.tensors), metadata={_STEPS_DONE: str(self.steps_done)})


def read(file: bytes, *, steps_done: int) -> Checkpoint:
    """Reads the checkpoint after this many steps. Raises ``BadCheckpoint``."""
    try:
        tensors = load(file)
    except SafetensorError as error:
        raise BadCheckpoint(f"resume: not a safetensors file: {error}") from error
    found = metadata(file).get(_STEPS_DONE)
    if found != str(steps_done):
        raise BadCheckpoint(f"resume: a checkpoint after step {found}, not {steps_done}")
    return Checkpoint(steps_done, tensors)


def take(parameters: Parameters, optimizer: torch.optim.AdamW, *, steps_done: int) -> Checkpoint:
    """The checkpoint of the parameters and their optimiser as they are now."""
    tensors = {}
    for name, parameter in parameters.items():
        tensors[name] = _own(parameter)
        # A parameter that never had a gradient has no state.
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = _own(value)
    return Checkpoint(steps_done, tensors)


def restore(checkpoint: Checkpoint, parameters: Parameters, optimizer: torch.optim.AdamW) -> None:
    """Sets parameters and optimiser to the checkpoint. Raises ``BadCheckpoint`` before anything is
    changed."""
    for name, tensor in checkpoint.tensors.items():
        _check(name, tensor, parameters)
    if missing := parameters.keys() - checkpoint.tensors.keys():
        raise BadCheckpoint(f"resume: {min(missing)} is missing")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.tensors[name])
            state = {key: checkpoint.tensors.get(f"{name}/{key}") for key in _STATE}
            for key, value in state.items():
                if value is not None:
                    # AdamW counts steps on the CPU, where it is not fused.
                    on_cpu = key == "step" and not optimizer.defaults["fused"]
                    device = "cpu" if on_cpu else parameter.device
                    optimizer.state[parameter][key] = value.to(device, copy=True)


def _check(name: str, tensor: torch.Tensor, parameters: Parameters) -> None:
    of, _, key = name.partition("/")
    if of not in parameters or key not in ("", *_STATE):
        raise BadCheckpoint(f"resume: {name} does not belong to this job")
    wanted = () if key == "step" else parameters[of].shape
    if tensor.shape != torch.Size(wanted) or tensor.dtype != torch.float32:
        raise BadCheckpoint(f"resume: {name} is {tensor.dtype} {list(tensor.shape)}")


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()

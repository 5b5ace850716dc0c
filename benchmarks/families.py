"""Measures what a step costs with each preset's full-size architecture, on one GPU.

``python -m benchmarks.families [NAME …]`` prints the table; ``--save`` keeps it in
``benchmarks/results/``. Weights are random, so nothing is downloaded: time and memory don't depend
on their values. A generator's step is sampling to a random timestep, the forward pass, the backward
pass from a random image gradient, and the optimiser's step. A VLM's step is its answer to one
question and the gradient for the image. ``--tiny`` runs the same on the CPU with the tiny models of
the tests; its times mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.architectures.generators import NETWORKS, generator
from benchmarks.architectures.vlms import CONFIGS, vlm
from benchmarks.machine import provenance
from dualprocess.schemas import ImageOptions, JobSpec, OptimizerOptions, Question
from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset, Presets, load_presets
from services.common.torch_tensors import DTYPES_BY_NAME
from services.generator.families.base import GeneratorFamily
from services.generator.training import Training
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.worker import wire
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import guide
from tests.generator import rows as generator_rows
from tests.vlm import rows as vlm_rows

QUESTION, ANSWER, POSTFIX = "Is the man smiling?", "Yes", "Answer with Yes or No."
SIDE, TINY_SIDE = 512, 64
#: Steps at the start that don't count, while kernels are chosen and the allocator's pool grows.
WARM_UP = 1
#: ``max_memory_reserved`` of the authors' own single-process code, at 512² in bf16.
REFERENCE_GB = {
    "sd-1.4": 6.6,
    "sana-1.6b": 15.0,
    "flux-schnell": 44.3,
    "flux-dev": 44.3,
    "idefics2": 17.3,
    "qwen2.5-vl": 19.6,
    "gemma3": 12.1,
    "llava-1.5": 16.7,
    "pixtral": 34.7,
}
NAMES = (*NETWORKS, *CONFIGS)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cost:
    """``parameters`` are the denoiser's, or the whole VLM's. ``seconds`` are of each counted step.

    Memory is ``max_memory_reserved`` in 10^9 bytes: ``peak_gb`` from the first weight on, with text
    encoders at work; ``steps_gb`` of the counted steps. None on a CPU.
    """

    parameters: int
    seconds: Sequence[float]
    peak_gb: float | None
    steps_gb: float | None


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("No CUDA device is here for full-size models: run it where one is, or add --tiny.")
    device = CPU if options.tiny else torch.device("cuda")
    costs: dict[str, Cost] = {}
    failures: dict[str, str] = {}
    for name in options.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            costs[name] = measure(name, device, options.steps)
        # If one preset fails, the results of the others are kept.
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
        if options.save:
            _save(device, costs, failures)
    Console().print(table(device, costs))
    for name, failure in failures.items():
        print(f"{name}: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--steps", type=int, default=10, help="that count, of each preset")
    parser.add_argument("--tiny", action="store_true", help="tiny models, on the CPU")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    if strangers := [name for name in options.names if name not in NAMES]:
        parser.error(f"{strangers[0]} is unknown: choose from {', '.join(NAMES)}")
    return options


def measure(name: str, device: torch.device, steps: int) -> Cost:
    """Measures one preset, from its first weight to its last step."""
    # Frees what the preset before this one left, also if it failed.
    gc.collect()
    _empty_cache(device)
    _reset_peak(device)
    torch.manual_seed(0)
    if name in NETWORKS:
        return _measure_generator(name, device, steps)
    return _measure_vlm(name, device, steps)


def _measure_generator(name: str, device: torch.device, steps: int) -> Cost:
    family, preset, side = _generator(name, device)
    parameters = _count(family.denoiser)
    training = Training(family, optimize_spec(preset, side, WARM_UP + steps), "job")

    def step(index: int) -> None:
        made = training.forward(index, 0)
        anchor = training.compare(made)
        gradient = torch.randn_like(made.images) / made.images.numel()
        training.backward(made.images, gradient, anchor, [1.0] * len(gradient))
        training.update()

    return _cost(parameters, device, step, steps)


def _measure_vlm(name: str, device: torch.device, steps: int) -> Cost:
    family, side = _vlm(name, device)
    dtype = DTYPES_BY_NAME[family.preset.dtype]
    images = torch.rand(1, 3, side, side, device=device, dtype=dtype) * 2 - 1

    def step(_index: int) -> None:
        guide(family, images, [AskedQuestion(QUESTION, ANSWER)], POSTFIX)

    return _cost(_count(family.model), device, step, steps)


def _generator(name: str, device: torch.device) -> tuple[GeneratorFamily, GeneratorPreset, int]:
    if device != CPU:
        return generator(name, device), load_presets().generator(name), SIDE
    (row,) = (row for row in generator_rows.ROWS if row.preset == name)
    return row.load(), row.tiny, TINY_SIDE


def _vlm(name: str, device: torch.device) -> tuple[VlmFamily, int]:
    if device != CPU:
        return vlm(name, device), SIDE
    (row,) = (row for row in vlm_rows.ROWS if row.preset == name)
    return row.load(), TINY_SIDE


def optimize_spec(preset: GeneratorPreset, side: int, steps: int) -> pb.OptimizeSpec:
    """The job of a spec in which only the image's size is set."""
    spec = JobSpec(
        prompt="a photo of a man",
        questions=[Question(question=QUESTION, answer=ANSWER)],
        generator=preset.name,
        vlm="idefics2",
        image=ImageOptions(width=side, height=side),
        optimizer=OptimizerOptions(steps=steps, batch=1),
    )
    presets = Presets(generators={preset.name: preset}, vlms=load_presets().vlms)
    return wire.optimize_spec(resolve_job(spec, presets), {"idefics2": "nobody"})


def _cost(parameters: int, device: torch.device, step: Callable[[int], None], steps: int) -> Cost:
    for index in range(WARM_UP):
        step(index)
    _synchronize(device)
    before = _peak_gb(device)
    _empty_cache(device)
    _reset_peak(device)
    seconds = []
    for index in range(WARM_UP, WARM_UP + steps):
        begin = time.perf_counter()
        step(index)
        _synchronize(device)
        seconds.append(time.perf_counter() - begin)
    during = _peak_gb(device)
    peak = None if before is None or during is None else max(before, during)
    return Cost(parameters, seconds, peak, during)


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gb(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_reserved(device) / 1e9


def _save(device: torch.device, costs: dict[str, Cost], failures: dict[str, str]) -> None:
    path = Path(__file__).parent / "results" / "families.json"
    path.parent.mkdir(exist_ok=True)
    result = provenance() | {
        "device": _device_name(device),
        "torch": torch.__version__,
        "families": {name: asdict(cost) for name, cost in costs.items()},
        "failures": failures,
    }
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, tiny models"


def table(device: torch.device, costs: dict[str, Cost]) -> Table:
    shown = Table(title=f"{_device_name(device)}, batch 1, median of the steps")
    for header in ("preset", "parameters", "s a step", "peak GB", "steps GB", "reference GB"):
        shown.add_column(header, no_wrap=True, justify="left" if header == "preset" else "right")
    for name, cost in costs.items():
        shown.add_row(
            name,
            f"{cost.parameters:,}",
            f"{statistics.median(cost.seconds):.3f}",
            _gigabytes(cost.peak_gb),
            _gigabytes(cost.steps_gb),
            _gigabytes(REFERENCE_GB.get(name) if device != CPU else None),
        )
    return shown


def _gigabytes(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()

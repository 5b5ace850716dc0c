"""Measures what a step costs with each preset's full-size architecture, on one GPU, beside what
was computed of it.

``python -m benchmarks.families [NAME …]`` prints the table; ``--save`` keeps it in
``benchmarks/results/``. Weights are random, so nothing is downloaded: time and memory don't depend
on their values. A generator's step is sampling to a random timestep, the forward pass, the backward
pass from a random image gradient, and the optimiser's step. A VLM's step is its answer to
``--questions`` and the gradient for the image. ``--level`` and ``--quantize`` are a preset's
``memory`` and ``quantize``. ``--tiny`` runs the same on the CPU with the tiny models of the tests;
its times mean nothing.
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
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import provenance
from dualprocess.schemas import ImageOptions, JobSpec, OptimizerOptions, Question
from dualprocess.v1 import generator_pb2 as pb
from services.common.attention import choose_kernels
from services.common.footprint import recorded
from services.common.footprint.card import GIB, reserved
from services.common.memory import LEVELS, MemoryLevel, Quantization
from services.common.presets import AnyPreset, GeneratorPreset, Presets, load_presets
from services.common.replay import RECORDED_AT
from services.common.torch_tensors import DTYPES_BY_NAME
from services.generator import architecture as generators
from services.generator.families.base import GeneratorFamily
from services.generator.memory import levels
from services.generator.training import Training
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.worker import wire
from services.vlm import architecture as vlms
from services.vlm import memory as vlm_levels
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import guide
from services.vlm.memory import VlmLevel

QUESTIONS = (
    "Is the man smiling?",
    "Is the man wearing a hat?",
    "Is it raining in the picture?",
    "Is the sky blue?",
    "Is the man holding a red umbrella?",
)
ANSWER, POSTFIX = "Yes", "Answer with Yes or No."
SIDE, TINY_SIDE = 512, 64
#: Steps at the start that don't count: kernels are chosen, the pool grows, recordings are made.
WARM_UP = RECORDED_AT
#: ``max_memory_reserved`` of the authors' own single-process code in GiB, at 512² in bf16, with one
#: question.
REFERENCE_GIB = {
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
_PRESETS = load_presets()
GENERATORS = tuple(name for name, preset in _PRESETS.generators.items() if preset.is_on_hub)
VLMS = tuple(name for name, preset in _PRESETS.vlms.items() if preset.is_on_hub)
NAMES = (*GENERATORS, *VLMS)
CPU = torch.device("cpu")
_WIDTH = 150


@dataclass(frozen=True)
class Memory:
    """GiB of the device. ``reserved`` is ``max_memory_reserved`` with text encoders at work and in
    steps, ``steps_reserved`` and ``steps_allocated`` are of the counted steps; ``context`` is what
    the process has of the card besides what torch reserves."""

    reserved: float
    steps_reserved: float
    steps_allocated: float
    context: float


@dataclass(frozen=True)
class Computed:
    """The same from the preset's footprint."""

    reserved: float
    steps_reserved: float
    steps_allocated: float


@dataclass(frozen=True)
class Cost:
    """``parameters`` are the denoiser's, or the whole VLM's. ``seconds`` are of each counted step.
    ``memory`` is ``None`` on a CPU, ``computed`` where no footprint is recorded."""

    parameters: int
    seconds: Sequence[float]
    memory: Memory | None
    computed: Computed | None


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("No CUDA device is here for full-size models: run it where one is, or add --tiny.")
    device = CPU if options.tiny else torch.device("cuda")
    choose_kernels(device)
    setting = {name: getattr(options, name) for name in ("level", "quantize", "questions")}
    costs: dict[str, Cost] = {}
    failures: dict[str, str] = {}
    for name in options.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            costs[name] = measure(name, device, options.steps, **setting)
        # If one preset fails, the results of the others are kept.
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
        if options.save:
            _save(device, setting, costs, failures)
    Console(width=_WIDTH).print(table(device, costs, **setting))
    for name, failure in failures.items():
        print(f"{name}: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--steps", type=int, default=10, help="that count, of each preset")
    parser.add_argument("--level", choices=LEVELS, default="fast", help="of memory")
    parser.add_argument("--quantize", choices=get_args(Quantization))
    parser.add_argument("--questions", type=int, default=1, choices=range(1, len(QUESTIONS) + 1))
    parser.add_argument("--tiny", action="store_true", help="tiny models, on the CPU")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    if strangers := [name for name in options.names if name not in NAMES]:
        parser.error(f"{strangers[0]} is unknown: choose from {', '.join(NAMES)}")
    return options


def measure(
    name: str,
    device: torch.device,
    steps: int,
    *,
    level: MemoryLevel = "fast",
    quantize: Quantization | None = None,
    questions: int = 1,
) -> Cost:
    """Measures one preset at one setting: encoding a prompt, and steps. Of a VLM ``decoder`` is
    ``fast`` and ``blocks`` is ``lean``. ``questions`` are a VLM's."""
    # Frees what the preset before this one left, also if it failed.
    gc.collect()
    _empty_cache(device)
    torch.manual_seed(0)
    if name in GENERATORS:
        return _measure_generator(name, device, steps, level, quantize)
    vlm_level: VlmLevel = "lean" if level in ("blocks", "lean") else "fast"
    return _measure_vlm(name, device, steps, vlm_level, quantize, questions)


def _measure_generator(
    name: str,
    device: torch.device,
    steps: int,
    level: MemoryLevel,
    quantize: Quantization | None,
) -> Cost:
    family, side = _generator(name, device, quantize)
    levels.apply(family, level)
    parameters = _count(family.denoiser)
    _start_over(device)
    training = Training(family, optimize_spec(family.preset, side, WARM_UP + steps), "job")

    def step(index: int) -> None:
        made = training.forward(index, 0)
        anchor = training.compare(made)
        gradient = torch.randn_like(made.images) / made.images.numel()
        training.backward(made.images, gradient, anchor, [1.0] * len(gradient))
        training.update()

    seconds, memory = _measured(device, step, steps)
    training.close()
    return Cost(parameters, seconds, memory, _computed(family.preset, level, quantize, 0))


def _measure_vlm(
    name: str,
    device: torch.device,
    steps: int,
    level: VlmLevel,
    quantize: Quantization | None,
    questions: int,
) -> Cost:
    family, side = _vlm(name, device, quantize)
    vlm_levels.apply(family, level)
    dtype = DTYPES_BY_NAME[family.preset.dtype]
    images = torch.rand(1, 3, side, side, device=device, dtype=dtype) * 2 - 1
    asked = [AskedQuestion(question, ANSWER) for question in QUESTIONS[:questions]]
    _start_over(device)

    def step(_index: int) -> None:
        guide(family, images, asked, POSTFIX)

    seconds, memory = _measured(device, step, steps)
    computed = _computed(family.preset, level, quantize, questions)
    return Cost(_count(family.model), seconds, memory, computed)


def _generator(
    name: str, device: torch.device, quantize: Quantization | None
) -> tuple[GeneratorFamily, int]:
    change = {"quantize": quantize}
    if device != CPU:
        preset = load_presets().generator(name).model_copy(update=change)
        return generators.generator(preset, device), SIDE
    # Only the checkout has the tests.
    from services.generator import registry
    from tests.generator.rows import ROWS

    (row,) = (row for row in ROWS if row.preset == name)
    return registry.load(row.tiny.model_copy(update=change), device), TINY_SIDE


def _vlm(name: str, device: torch.device, quantize: Quantization | None) -> tuple[VlmFamily, int]:
    change = {"quantize": quantize}
    if device != CPU:
        preset = load_presets().vlm(name).model_copy(update=change)
        return vlms.vlm(preset, device), SIDE
    from services.vlm import registry
    from tests.vlm.rows import ROWS

    (row,) = (row for row in ROWS if row.preset == name)
    return registry.load(row.tiny.model_copy(update=change), device), TINY_SIDE


def optimize_spec(preset: GeneratorPreset, side: int, steps: int) -> pb.OptimizeSpec:
    """The job of a spec in which only the image's size is set."""
    spec = JobSpec(
        prompt="a photo of a man",
        questions=[Question(question=QUESTIONS[0], answer=ANSWER)],
        generator=preset.name,
        vlm="idefics2",
        image=ImageOptions(width=side, height=side),
        optimizer=OptimizerOptions(steps=steps, batch=1),
    )
    presets = Presets(generators={preset.name: preset}, vlms=load_presets().vlms)
    return wire.optimize_spec(resolve_job(spec, presets), {"idefics2": "nobody"})


def _measured(
    device: torch.device, step: Callable[[int], None], steps: int
) -> tuple[list[float], Memory | None]:
    for index in range(WARM_UP):
        step(index)
    _synchronize(device)
    before = _reserved(device)
    _start_over(device)
    seconds = []
    for index in range(WARM_UP, WARM_UP + steps):
        begin = time.perf_counter()
        step(index)
        _synchronize(device)
        seconds.append(time.perf_counter() - begin)
    if device.type != "cuda":
        return seconds, None
    during = _reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    context = total - free - torch.cuda.memory_reserved(device)
    allocated = torch.cuda.max_memory_allocated(device)
    memory = Memory(max(before, during) / GIB, during / GIB, allocated / GIB, context / GIB)
    return seconds, memory


def _computed(
    preset: AnyPreset, level: MemoryLevel, quantize: Quantization | None, questions: int
) -> Computed | None:
    # float8 takes what int8 takes.
    codes = "int8" if quantize == "float8" else quantize
    for found in recorded.settings(preset, SIDE, 1, questions):
        if (found.work.level, found.work.quantize) == (level, codes):
            return Computed(
                reserved(max(found.step, found.encode)) / GIB,
                reserved(found.step) / GIB,
                found.step / GIB,
            )
    return None


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _start_over(device: torch.device) -> None:
    """Peaks from here on."""
    _empty_cache(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _reserved(device: torch.device) -> int:
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def _save(
    device: torch.device,
    setting: dict[str, object],
    costs: dict[str, Cost],
    failures: dict[str, str],
) -> None:
    path = Path(__file__).parent / "results" / "families.json"
    path.parent.mkdir(exist_ok=True)
    result = provenance() | {
        "device": _device_name(device),
        "torch": torch.__version__,
        "setting": setting,
        "families": {name: asdict(cost) for name, cost in costs.items()},
        "failures": failures,
    }
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, tiny models"


def table(
    device: torch.device,
    costs: dict[str, Cost],
    level: MemoryLevel = "fast",
    quantize: Quantization | None = None,
    questions: int = 1,
) -> Table:
    """Memory in GiB: what torch reserved, what was computed, and what the authors' code reserves in
    one process."""
    setting = f"memory {level}, weights {quantize or 'as the preset has them'}"
    shown = Table(
        title=f"{_device_name(device)}, batch 1, {setting}, {questions} questions; median; GiB"
    )
    headers = ("preset", "parameters", "s a step", "reserved", "computed")
    for header in (*headers, "steps", "computed", "tensors", "computed", "CUDA", "reference"):
        shown.add_column(header, no_wrap=True, justify="left" if header == "preset" else "right")
    for name, cost in costs.items():
        reference = REFERENCE_GIB.get(name) if device != CPU else None
        shown.add_row(
            name,
            f"{cost.parameters:,}",
            f"{statistics.median(cost.seconds):.3f}",
            *map(_gib, (*_beside(cost), reference)),
        )
    return shown


def _beside(cost: Cost) -> list[float | None]:
    """What was measured, each with what was computed of it; then CUDA's own."""
    memory, computed = cost.memory, cost.computed
    if memory is None:
        return [None] * 7
    told: list[float | None] = []
    for name in ("reserved", "steps_reserved", "steps_allocated"):
        told += [getattr(memory, name), getattr(computed, name) if computed else None]
    return [*told, memory.context]


def _gib(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()

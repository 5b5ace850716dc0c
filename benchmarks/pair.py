"""Measures a whole job of a full-size pair on one GPU: its steps, its pictures and files.

``python -m benchmarks.pair flux-schnell idefics2`` prints the times; ``--save`` keeps them in
``benchmarks/results/``. Both models have random weights, and each has the device thread of its
service; messages are those of the wire, without the network between. Steps with the guard's terms
and without, with and without recordings, are in turn. ``--tiny`` runs the same on the CPU with the
trained pair; its times mean nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.families import ANSWER, CPU, GENERATORS, POSTFIX, QUESTIONS, SIDE, VLMS
from benchmarks.machine import provenance
from dualprocess.schemas import (
    EvalOptions,
    GuardOptions,
    ImageOptions,
    JobSpec,
    OptimizerOptions,
    Question,
)
from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2, vlm_pb2
from services.common.device import DeviceThread
from services.common.presets import GeneratorPreset, Presets, VlmPreset, load_presets
from services.generator import architecture as generators
from services.generator import registry as generator_registry
from services.generator.families.base import GeneratorFamily
from services.generator.guide import Guidance
from services.generator.interrupts import Interrupts
from services.generator.memory import levels
from services.generator.optimize import optimize
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.worker import wire
from services.vlm import architecture as vlms
from services.vlm import registry as vlm_registry
from services.vlm.families.base import VlmFamily
from services.vlm.servicer import VlmServicer

GUARDS = {
    "no guard": GuardOptions(anchor=0, margin=1, worst_case=0),
    "anchor, margin": GuardOptions(worst_case=0),
    "whole guard": None,
}
#: The servicer's methods don't look at it.
_NO_CONTEXT: Any = None
#: Steps at the start that are not counted: kernels are chosen, recordings made.
WARM_UP = 5
_WIDTH = 120


@dataclass(frozen=True)
class Spent:
    """Seconds of one job. ``step`` is the median after the first ones, and its phases are of the
    same steps; ``steps`` and ``results``, pictures and files, are whole. Scores come on top: a VLM
    answers about each picture without a gradient."""

    step: float
    forward: float
    vlm: float
    backward: float
    steps: float
    results: float


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("No CUDA device is here for full-size models: run it where one is, or add --tiny.")
    spent = asyncio.run(_measured(options))
    Console(width=_WIDTH).print(table(options, spent))
    if options.save:
        _save(options, spent)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("generator", nargs="?", default="flux-schnell", choices=GENERATORS)
    parser.add_argument("vlm", nargs="?", default="idefics2", choices=VLMS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=4, help="pictures of the evaluation")
    parser.add_argument("--questions", type=int, default=1, choices=range(1, len(QUESTIONS) + 1))
    parser.add_argument(
        "--recordings", choices=("on", "off", "both"), default="both", help="on a GPU"
    )
    parser.add_argument("--tiny", action="store_true", help="the trained pair, on the CPU")
    parser.add_argument("--save", action="store_true")
    return parser.parse_args(arguments)


async def _measured(options: argparse.Namespace) -> dict[str, Spent]:
    """By the guard, and whether steps come from recordings."""
    presets = load_presets()
    names = ("tiny-flux", "tiny-idefics2") if options.tiny else (options.generator, options.vlm)
    generator, vlm = presets.generator(names[0]), presets.vlm(names[1])
    where = "cpu" if options.tiny else "cuda"
    spent = {}
    wanted = {"on": (True,), "off": (False,), "both": (False, True)}
    for recordings in (False,) if options.tiny else wanted[options.recordings]:
        change = {"recordings": recordings}
        its_generator = generator.model_copy(update=change)
        its_vlm = vlm.model_copy(update=change)
        draws, answers = DeviceThread(where), DeviceThread(where)
        try:
            family = await draws.run(_generator, its_generator, draws.device)
            model = await answers.run(_vlm, its_vlm, answers.device)
            servicer = VlmServicer(its_vlm, model, answers)
            for name, guard in GUARDS.items():
                spec = _spec(options, its_generator, its_vlm, guard)
                key = f"{name}, {'recorded' if recordings else 'as it is'}"
                spent[key] = await _job(spec, family, draws, servicer)
                print(key, spent[key], file=sys.stderr, flush=True)
            del family, model, servicer
        finally:
            draws.close()
            answers.close()
        if where == "cuda":
            torch.cuda.empty_cache()
    return spent


def _generator(preset: GeneratorPreset, device: torch.device) -> GeneratorFamily:
    torch.manual_seed(0)
    if device == CPU:
        return generator_registry.load(preset, device)
    family = generators.generator(preset, device)
    levels.apply(family, "fast")
    return family


def _vlm(preset: VlmPreset, device: torch.device) -> VlmFamily:
    torch.manual_seed(0)
    return vlm_registry.load(preset, device) if device == CPU else vlms.vlm(preset, device)


def _spec(
    options: argparse.Namespace,
    generator: GeneratorPreset,
    vlm: VlmPreset,
    guard: GuardOptions | None,
) -> pb.OptimizeSpec:
    asked = [Question(question=each, answer=ANSWER) for each in QUESTIONS[: options.questions]]
    size = ImageOptions() if options.tiny else ImageOptions(width=SIDE, height=SIDE)
    spec = JobSpec(
        prompt="a photo of a man",
        questions=asked,
        question_postfix=POSTFIX,
        generator=generator.name,
        vlm=vlm.name,
        optimizer=OptimizerOptions(steps=options.steps, batch=1),
        eval=EvalOptions(images=options.images, every=0),
        guard=guard or GuardOptions(),
        image=size,
    )
    presets = Presets(generators={generator.name: generator}, vlms={vlm.name: vlm})
    return wire.optimize_spec(resolve_job(spec, presets), {vlm.name: "here"})


async def _job(
    spec: pb.OptimizeSpec, family: GeneratorFamily, device: DeviceThread, servicer: VlmServicer
) -> Spent:
    """Runs it, without a worker."""
    guard = vlm_pb2.GuideGuard(margin=spec.guard.margin, worst_case=spec.guard.worst_case)
    steps: list[pb.StepTimings] = []
    ends = [time.perf_counter()]

    async def guide(images: tensor_pb2.Tensor) -> Guidance:
        request = vlm_pb2.GuideRequest(
            images=images,
            questions=spec.questions,
            question_postfix=spec.question_postfix,
            guard=guard,
        )
        response = await servicer.Guide(request, _NO_CONTEXT)
        answers = [image.answers for image in response.images]
        return Guidance(response.loss, answers, response.gradient, response.seconds)

    async def emit(response: pb.OptimizeResponse) -> None:
        if response.HasField("step"):
            steps.append(response.step.timings)
            ends[0] = time.perf_counter()

    begin = time.perf_counter()
    await optimize(family, device, spec, guide, emit, name="pair", interrupts=Interrupts())
    done = time.perf_counter()
    counted = steps[WARM_UP:] or steps
    phases = {
        phase: statistics.median(getattr(timings, phase) for timings in counted)
        for phase in ("forward", "vlm", "backward")
    }
    return Spent(
        step=statistics.median(timings.total for timings in counted),
        **phases,
        steps=ends[0] - begin,
        results=done - ends[0],
    )


def table(options: argparse.Namespace, spent: dict[str, Spent]) -> Table:
    pair = "the trained pair" if options.tiny else f"{options.generator} + {options.vlm}"
    shown = Table(width=_WIDTH, title=f"{_device()}, {pair}, {options.steps} steps")
    headers = ("ms: step", "forward", "VLM", "backward", "s: steps", "results", "all")
    for header in ("", *headers):
        shown.add_column(header, justify="right" if header else "left")
    for name, each in spent.items():
        parts = (each.step, each.forward, each.vlm, each.backward)
        whole = (each.steps, each.results)
        shown.add_row(
            name,
            *(f"{1000 * seconds:.0f}" for seconds in parts),
            *(f"{seconds:.1f}" for seconds in (*whole, sum(whole))),
        )
    return shown


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _save(options: argparse.Namespace, spent: dict[str, Spent]) -> None:
    path = Path(__file__).parent / "results" / "pair.json"
    result = provenance() | {
        "device": _device(),
        "torch": torch.__version__,
        "pair": [options.generator, options.vlm],
        "steps": options.steps,
        "spent": {name: asdict(each) for name, each in spent.items()},
    }
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

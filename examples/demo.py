"""The main job, start to end: ``python -m examples.demo``, or ``make demo``.

Starts the service on this machine, submits ``examples/red-circle.yaml`` as any client would, and
shows what the LoRA learned, by the VLM that taught it and by a pixel measure that no model has
seen; and what else it changed.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dualprocess import (
    Client,
    DualProcessError,
    ImagesRequest,
    Job,
    JobStatus,
    LoraUse,
    printable,
)
from dualprocess.cli import specs, watching
from models.training.measure import Image
from models.training.tasks import TASKS
from models.training.unasked import MEASURES, diversity, unasked
from services.local.ports import free_port
from services.orchestrator.worker.report import samples_png

EXAMPLES = Path(__file__).parent
OUTPUT = Path("demo-output")
FILES = {
    "pytorch_lora_weights.safetensors": "LoRA",
    "samples.png": "base and LoRA",
    "loss.png": "loss",
}
#: Of the held-out seeds, base above, LoRA below.
SHEET, ON_SHEET = OUTPUT / "red-circle.png", 8
TASK = TASKS["red-circle"]
#: Training noise never comes from these: its seeds begin at 2^62.
HELD_OUT = range(64)

console = Console()


def main() -> int:
    begin = time.monotonic()
    with service(OUTPUT) as url, Client(url) as client:
        console.print(f"the service answers at {url}, after {time.monotonic() - begin:.0f} s")
        job = client.submit(specs.load(str(EXAMPLES / "red-circle.yaml")))
        job = watching.watch(client, job)
        if job.status != JobStatus.SUCCEEDED:
            console.print(
                Text(printable.lines(f"job {job.id} {job.status}: {job.error}")), style="red"
            )
            return 1
        for name in FILES:
            client.download(job.id, name, OUTPUT / name)
        base, lora = (drawn(client, job, loras) for loras in ([], [LoraUse(job=job.id)]))
        show(job, pixels(base), pixels(lora))
        SHEET.write_bytes(samples_png(HELD_OUT[:ON_SHEET], base[:ON_SHEET], lora[:ON_SHEET]))
        console.print(f"{ON_SHEET} seeds, base above, LoRA below: {SHEET}", highlight=False)
    console.print(f"everything took {time.monotonic() - begin:.0f} s")
    return 0


@contextlib.contextmanager
def service(data: Path) -> Iterator[str]:
    """The whole stack in child processes, ready; its address."""
    port = free_port()
    arguments = [f"--port={port}", f"--data={data}", "--quiet"]
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "services.local", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if not any("is ready at" in line for line in process.stdout):
            raise SystemExit(f"the service did not start; {data}/logs says why")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def success(client: Client, job: Job, loras: list[LoraUse]) -> float:
    """Share of the held-out seeds whose pixels are one whole red circle."""
    return red_circles(pixels(drawn(client, job, loras)))


def drawn(client: Client, job: Job, loras: list[LoraUse]) -> list[bytes]:
    """The generator's pictures of the held-out seeds, encoded."""
    images = client.generate(
        ImagesRequest(
            prompt=TASK.prompt, generator=job.generator, seeds=list(HELD_OUT), loras=loras, wait=120
        )
    )
    return [client.read_artifact(images.id, f"image-{seed}.png") for seed in HELD_OUT]


def pixels(files: list[bytes]) -> list[Image]:
    """(64, 64, 3) each."""
    return [np.asarray(PIL.Image.open(io.BytesIO(file))) for file in files]


def red_circles(images: list[Image]) -> float:
    return float(np.mean([TASK.success(image) for image in images]))


def show(job: Job, base: list[Image], lora: list[Image]) -> None:
    scores, kept = job.scores, unasked(base, lora)
    assert scores.base is not None
    assert scores.lora is not None
    table = Table("", "base", "LoRA", title='"a circle", asked "Is the circle red?"')
    table.add_row(
        'probability of "Yes", by the VLM',
        f"{scores.base.probability.geometric_mean:.3f}",
        f"{scores.lora.probability.geometric_mean:.3f}",
    )
    table.add_row(
        f"red circles among {len(HELD_OUT)}, by pixels",
        f"{red_circles(base):.0%}",
        f"{red_circles(lora):.0%}",
    )
    table.add_row("difference between two pictures", "100%", f"{diversity(base, lora):.0%}")
    console.print(table)
    if kept is not None:
        moves = ", ".join(
            f"{name.replace('_', ' ')} {kept.moved[name].move:.2f}"
            for name in MEASURES
            if name not in TASK.asks
        )
        console.print(f"moved, though nobody asked (in standard deviations of the base): {moves}")
    console.print(
        f"in the autoencoder's latents: drift {scores.drift:.2f}, diversity {scores.diversity:.2f}"
    )
    for warning in job.warnings:
        console.print(Text(printable.lines(warning)), style="yellow")
    for name, what in FILES.items():
        console.print(f"{what}: {OUTPUT / name}", highlight=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DualProcessError as error:
        console.print(Text(printable.lines(str(error))), style="red")
        sys.exit(1)

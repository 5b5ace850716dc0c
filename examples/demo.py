"""The main job, start to end: ``python -m examples.demo``, or ``make demo``.

Starts the service on this machine, submits ``examples/red-circle.yaml`` as any client would, and
shows what the LoRA learned: by the VLM that taught it, and by a pixel measure that no model has
seen.
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
from PIL import Image
from rich.console import Console
from rich.table import Table

from dualprocess import Client, DualProcessError, ImagesRequest, Job, JobStatus, LoraUse
from dualprocess.cli import specs, watching
from models.training.tasks import TASKS
from services.local.ports import free_port

EXAMPLES = Path(__file__).parent
OUTPUT = Path("demo-output")
FILES = ("pytorch_lora_weights.safetensors", "samples.png", "loss.png")
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
            console.print(f"job {job.id} {job.status}: {job.error}", style="red")
            return 1
        for name in FILES:
            client.download(job.id, name, OUTPUT / name)
        show(job, success(client, job, loras=[]), success(client, job, [LoraUse(job=job.id)]))
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
    images = client.generate(
        ImagesRequest(
            prompt="a circle", generator=job.generator, seeds=list(HELD_OUT), loras=loras, wait=120
        )
    )
    pictures = [client.read_artifact(images.id, f"image-{seed}.png") for seed in HELD_OUT]
    task = TASKS["red-circle"]
    return float(np.mean([task.success(np.asarray(Image.open(io.BytesIO(p)))) for p in pictures]))


def show(job: Job, before: float, after: float) -> None:
    base, lora = job.scores.base, job.scores.lora
    assert base is not None
    assert lora is not None
    table = Table("", "base", "LoRA", title='"a circle", asked "Is the circle red?"')
    table.add_row(
        'probability of "Yes", by the VLM',
        f"{base.probability.geometric_mean:.3f}",
        f"{lora.probability.geometric_mean:.3f}",
    )
    table.add_row(f"red circles among {len(HELD_OUT)}, by pixels", f"{before:.0%}", f"{after:.0%}")
    console.print(table)
    for name, what in zip(FILES, ("LoRA", "base and LoRA", "loss"), strict=True):
        console.print(f"{what}: {OUTPUT / name}", highlight=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DualProcessError as error:
        console.print(str(error), style="red")
        sys.exit(1)

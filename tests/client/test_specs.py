from __future__ import annotations

from pathlib import Path

from dualprocess.cli import specs

JOB = """
prompt: a circle
questions: [{question: "Is it red?", answer: "Yes", visual_prompt: {image: drawing.png}}]
generator: tiny-flux
vlm: tiny-idefics2
lora: {start: {file: lora.safetensors}}
"""


def test_files_beside_the_job_file_come_along(tmp_path: Path) -> None:
    for name in ("drawing.png", "lora.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "job.yaml").write_text(JOB)
    spec = specs.load(str(tmp_path / "job.yaml"))
    drawn = spec.questions[0].visual_prompt
    assert drawn is not None
    assert drawn.image == b"drawing.png"
    assert spec.lora.start is not None
    assert spec.lora.start.file == b"lora.safetensors"

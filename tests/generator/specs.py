"""Small, complete specs for the tiny generators."""

from __future__ import annotations

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import vlm_pb2
from services.common.presets import load_presets


def image_spec(**changes: float) -> pb.ImageSpec:
    values: dict[str, float] = {"width": 64, "height": 64, "num_inference_steps": 1}
    return pb.ImageSpec(**(values | changes))  # type: ignore[arg-type]


def lora_spec(*, rank: int = 4) -> pb.LoraSpec:
    targets = load_presets().generator("flux-schnell").lora.target_modules
    return pb.LoraSpec(
        rank=rank, alpha=8, weight=5, target_modules=targets, init=pb.LORA_INIT_GAUSSIAN
    )


def optimize_spec(*, seed: int = 100, steps: int = 3, target: str = "none:0") -> pb.OptimizeSpec:
    return pb.OptimizeSpec(
        prompts=["a circle"],
        questions=[vlm_pb2.Question(question="Is it bright?", answer="Yes")],
        question_postfix="Answer with Yes or No.",
        vlms=[pb.VlmEndpoint(preset="scripted", target=target, weight=1)],
        image=image_spec(),
        lora=lora_spec(),
        optimizer=pb.OptimizerSpec(
            steps=steps,
            batch=2,
            accumulate=1,
            lr=1e-2,
            max_grad_norm=1.0,
            seed=seed,
            noise_seeds=steps,
            timestep=pb.TIMESTEP_RANDOM,
        ),
        eval=pb.EvalSpec(images=1, seed=0, every=0),
    )

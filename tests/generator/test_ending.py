"""A generator that is told to stop hands its jobs back, each with a checkpoint of its last step."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from services.common.channels import open_channel
from services.common.presets import load_presets
from services.local.ports import free_port
from tests.generator.specs import optimize_spec
from tests.generator.wire import ScriptedVlm, requests, vlm_served, whole
from tests.sick_service import started, until_ready


def _spec(vlm_port: int) -> pb.OptimizeSpec:
    spec = optimize_spec(steps=100, target=f"127.0.0.1:{vlm_port}")
    spec.optimizer.checkpoint_every = 100
    spec.lora.target_modules[:] = load_presets().generator("tiny-flux").lora.target_modules
    return spec


@pytest.mark.timeout(150)
async def test_sigterm_suspends_each_job_and_takes_no_more(
    tmp_path: Path, vlm: ScriptedVlm
) -> None:
    port = free_port()
    flags = ("--preset=tiny-flux", f"--port={port}")
    with started(tmp_path / "well", "services.generator", *flags) as process:
        try:
            async with vlm_served(vlm) as vlm_port, open_channel(f"127.0.0.1:{port}") as channel:
                await _suspended(process, channel, _spec(vlm_port), vlm)
            assert process.wait(20) == 0
        finally:
            process.kill()


async def _suspended(
    process: subprocess.Popen[str],
    channel: grpc.aio.Channel,
    spec: pb.OptimizeSpec,
    vlm: ScriptedVlm,
) -> None:
    stub = generator_pb2_grpc.GeneratorStub(channel)
    await until_ready(process, channel)
    running = stub.Optimize(iter(requests(spec)))
    responses = aiter(running)
    while not (last := await anext(responses)).HasField("step"):
        pass
    # The next step waits for its VLM: it is dropped.
    vlm.never_answers = True
    asked = len(vlm.requests)
    process.terminate()
    told, files = await whole(responses)
    steps = [one.step.step for one in (last, *told) if one.HasField("step")]
    kept = [one.checkpoint.step for one in told if one.HasField("checkpoint")]
    assert told[-1].finished.suspended
    assert kept[-1] == steps[-1]
    assert files == {}
    assert len(vlm.requests) <= asked + 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Describe(pb.GeneratorDescribeRequest())
    assert isinstance(refused.value, grpc.aio.AioRpcError)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

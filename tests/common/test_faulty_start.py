"""A GPU service that can't start says so in one line, and ends with status 1."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from services.common.credentials import OPEN
from services.common.device import DeviceThread
from services.common.errors import StartError
from services.common.presets import load_presets
from services.common.server import bind

MODELS = {"generator": "tiny-flux", "vlm": "tiny-idefics2"}


def _started(service: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"services.{service}", f"--preset={MODELS[service]}"]
    return subprocess.run(
        [*command, *flags],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_unknown_device() -> None:
    done = _started("vlm", "--port=0", "--device=gpu")
    assert done.returncode == 1
    assert done.stderr == "vlm: --device gpu is unknown; choose cpu, cuda, cuda:1, … or auto\n"


@pytest.mark.parametrize("service", MODELS)
def test_a_model_that_is_not_there(service: str, tmp_path: Path) -> None:
    name = MODELS[service]
    real = load_presets()
    preset = real.vlm(name) if service == "vlm" else real.generator(name)
    folder = tmp_path / "presets" / f"{service}s"
    folder.mkdir(parents=True)
    values = preset.model_dump(mode="json") | {"model": "./models/none"}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    flags = ("--port=0", "--device=cpu", f"--presets={folder.parent}")
    done = _started(service, *flags)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{service}: {tmp_path / 'models' / 'none'} can't be loaded: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(StartError, match=f"^--device {name} is not available: .*; choose another"):
        DeviceThread(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_beyond_the_last() -> None:
    with pytest.raises(StartError, match=r"^--device cuda:99 is not available: .*; choose another"):
        DeviceThread("cuda:99")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port: int = listener.getsockname()[1]
        yield port


def test_a_port_that_is_taken(taken: int) -> None:
    done = _started("vlm", f"--port={taken}", "--device=cpu")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"vlm: can't listen on 127.0.0.1:{taken}: it is in use, or is not an address of this "
        "machine; choose another --port or --host"
    )


async def test_two_services_never_share_a_port() -> None:
    first, port = bind("127.0.0.1:0", OPEN)
    await first.start()
    with pytest.raises(StartError, match=f"can't listen on 127.0.0.1:{port}: it is in use"):
        bind(f"127.0.0.1:{port}", OPEN)
    await first.stop(None)

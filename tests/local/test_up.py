"""``dualprocess up`` that can't start says so at once, in one sentence."""

from __future__ import annotations

import fcntl
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dualprocess.cli.up import register
from services.local.settings import LocalSettings

COMMAND = str(Path(sys.executable).with_name("dualprocess"))


def up(*flags: str) -> str:
    """Its message when it refuses to start."""
    done = subprocess.run(
        [COMMAND, "up", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, "as `dualprocess --help` says of what can't be"
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = up(f"--port={port}", f"--data={tmp_path}")
    assert f"http://127.0.0.1:{port} is taken; choose another --port" in said


def test_what_no_flag_says_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALPROCESS_DATA", str(tmp_path))
    monkeypatch.setenv("DUALPROCESS_VLM", "nothing")
    assert "'nothing' is unknown" in up()
    monkeypatch.setenv("DUALPROCESS_VLM", "tiny-idefics2")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("DUALPROCESS_PORT", str(port))
        assert f"http://127.0.0.1:{port} is taken" in up()


def test_it_takes_every_setting_of_a_stack_but_secrets() -> None:
    app = typer.Typer()
    register(app)
    options = {parameter.name for parameter in typer.main.get_command(app).params}
    settings = LocalSettings.model_fields.keys() - {"redis_url"}
    assert settings <= options


def test_a_bad_value_is_named() -> None:
    said = up("--port=70000", "--log-level=loud")
    assert "--port (or DUALPROCESS_PORT)" in said
    assert "--log-level (or DUALPROCESS_LOG_LEVEL)" in said


def test_one_stack_a_data_folder(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = up("--port=1", f"--data={tmp_path}")
    assert f"another stack works in {tmp_path}" in said


def test_a_folder_of_others_is_not_made_mine(tmp_path: Path) -> None:
    data = tmp_path / "pictures"
    data.mkdir(mode=0o755)
    (data / "mine.png").touch()
    said = up("--port=1", f"--data={data}")
    assert f"{data} can't be the folder (others on this machine have rights in it" in said
    assert "chmod 700" in said
    assert "choose another" in said
    assert data.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("made", [[], ["redis", "logs", "artifacts"]])
def test_a_stacks_own_folder_is_mine_alone_from_then_on(tmp_path: Path, made: list[str]) -> None:
    data = tmp_path / "data"
    folders = [data, *(data / name for name in made)]
    for folder in folders:
        folder.mkdir(mode=0o755)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = up(f"--port={taken.getsockname()[1]}", f"--data={data}")
    for folder in folders:
        assert f"{folder} was open to others on this machine; now it is yours alone" in said
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (data / "lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("flag", "known"), [("generator", "tiny-flux"), ("vlm", "tiny-idefics2")])
def test_an_unknown_model_brings_the_known_ones(tmp_path: Path, flag: str, known: str) -> None:
    said = up(f"--{flag}=nothing", f"--data={tmp_path}")
    assert "'nothing' is unknown" in said
    assert known in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--gpus=0-3,2"], "names GPU 2 twice"),
        (["--generator=tiny-flux", "--generator=nothing:2"], "'nothing' is unknown"),
    ],
)
def test_what_makes_no_plan_ends_before_anything_starts(
    tmp_path: Path, flags: list[str], sentence: str
) -> None:
    data = tmp_path / "data"
    assert sentence in up(f"--data={data}", *flags)
    assert sentence in up(f"--data={data}", "--dry-run", *flags)
    assert not data.exists()


def test_a_dry_run_prints_the_plan_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine without NVIDIA's driver.
    monkeypatch.setenv("PATH", str(tmp_path))
    data = tmp_path / "data"
    flags = ["--generator=flux-schnell:6", "--vlm=idefics2:2", "--gpus=0-7", f"--data={data}"]
    done = subprocess.run(
        [COMMAND, "up", "--dry-run", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for number in range(1, 7):
        card = f"flux-schnell, CUDA_VISIBLE_DEVICES={number - 1}\n"
        assert f"  generator-{number}  {card}" in done.stdout
        assert f"  worker-{number}     drives generator-{number}, asks vlm-1, vlm-2" in done.stdout
    assert "  vlm-1        idefics2, CUDA_VISIBLE_DEVICES=6\n" in done.stdout
    assert "  vlm-2        idefics2, CUDA_VISIBLE_DEVICES=7\n" in done.stdout
    assert "NO GPU IS FOUND, and --gpus 0-7 needs one: nvidia-smi" in done.stdout
    assert not data.exists()


def test_other_machines_are_let_in_with_keys_or_on_purpose(tmp_path: Path) -> None:
    said = up("--host=0.0.0.0", f"--data={tmp_path}")
    assert "--auth" in said
    assert "--insecure" in said

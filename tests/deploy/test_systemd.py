"""The units for a machine without containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from services.common.gpus import Gpus
from services.common.presets import load_presets
from services.local.plan import made
from services.local.settings import LocalSettings

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".service", ".timer"))
COMMAND = "/opt/dualprocess/venv/bin/dualprocess"


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]  # names of systemd have capitals
    parser.read_string((FOLDER / name).read_text())
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    for path in UNITS:
        # It looks for the programs; they are not on this machine.
        text = path.read_text().replace(COMMAND, "/bin/true")
        (tmp_path / path.name).write_text(text.replace("User=dualprocess", "User=root"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:/lib/systemd/system"},
        check=False,
    )
    said = [line for line in verified.stderr.splitlines() if str(tmp_path) in line]
    said += [line for line in verified.stderr.splitlines() if line.startswith("dualprocess")]
    assert said == []
    assert verified.returncode == 0, verified.stderr


def test_what_the_environment_names_is_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (FOLDER / "environment").read_text().splitlines()
    named = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    fields = {f"DUALPROCESS_{field.upper()}" for field in LocalSettings.model_fields}
    assert named.keys() <= fields
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    plan = made(LocalSettings.from_environment(), load_presets(), Gpus([], "none"), {})
    placed = (*plan.generators, *plan.vlms)
    assert [place.cards for place in placed] == [(card,) for card in "01234567"]


def test_a_stop_waits_for_jobs_and_bad_input_is_not_tried_again() -> None:
    service = unit("dualprocess.service")["Service"]
    assert service["ExecStart"].startswith(f"{COMMAND} up")
    assert service["KillMode"] == "mixed", "the children are the supervisor's to stop"
    assert service["TimeoutStopSec"] == "5min"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["User"] == "dualprocess"
    assert service["StateDirectoryMode"] == "0700"


def test_the_backup_is_of_the_data_that_the_service_keeps() -> None:
    service, backup = (unit(f"{name}.service") for name in ("dualprocess", "dualprocess-backup"))
    data = "DUALPROCESS_DATA=/var/lib/dualprocess"
    assert data in service["Service"]["Environment"]
    assert data in backup["Service"]["Environment"]
    assert f"{COMMAND} backup" in backup["Service"]["ExecStart"]
    assert "/var/lib/dualprocess" in backup["Service"]["ReadWritePaths"]

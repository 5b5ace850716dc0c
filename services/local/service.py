"""The command that runs the whole service on this machine: settings, plan, supervisor."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import NoReturn

from dualprocess import printable
from dualprocess.connection import certificates_fault
from services.common.exposure import exposure_fault
from services.common.extras import page_fault
from services.common.gpus import look
from services.common.presets import PresetError, load_presets
from services.common.redis_address import redis_refusal
from services.common.telemetry import as_json, configure_logging
from services.local import metrics_ports, own_redis, private, stack
from services.local.plan import Plan, made
from services.local.planned import told
from services.local.ports import is_free
from services.local.settings import LocalSettings
from services.local.supervisor import GaveUp, Supervisor
from services.local.wishes import WishError

log = logging.getLogger(__name__)

#: The exit status that `dualprocess --help` documents.
_BAD_INPUT = 2

#: What a stack creates in its data folder.
_LOCK = "lock"
_FOLDERS = ("redis", "artifacts", "logs", "metrics")

_COLOURS = {"redis": 31, "vlm": 36, "generator": 35, "api": 32, "worker": 33}


def main() -> None:
    # gRPC is used only to check the children's health, so its fork handlers are not needed.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # All calls stay on loopback, with a token of their own: certificates are for other machines.
    for name in ("DUALPROCESS_TLS_CERT", "DUALPROCESS_TLS_KEY", "DUALPROCESS_TLS_CA"):
        os.environ.pop(name, None)
    settings = LocalSettings.from_command_line()
    settings.data = settings.data.resolve()
    configure_logging("local", settings.log_level, settings.log_format)
    if fault := exposure_fault(settings.host, auth=settings.auth, insecure=settings.insecure):
        _refuse(fault)
    if fault := page_fault(ui=settings.ui):
        _refuse(fault)
    if fault := certificates_fault():
        _refuse(fault)
    gpus = look()
    try:
        plan = made(settings, load_presets(settings.presets), gpus, os.environ)
    except (PresetError, WishError) as error:
        _refuse(str(error))
    if settings.redis_url is not None and (refusal := redis_refusal(settings.redis_url)):
        settings.refuse("redis_url", refusal)
    if not settings.dry_run:
        _lock(settings)
    if not is_free(settings.host, settings.port):
        _refuse(f"{settings.url} is taken; choose another --port")
    print(printable.lines(told(plan, settings, gpus)), flush=True)
    if not settings.dry_run:
        asyncio.run(_run(settings, plan))


def _lock(settings: LocalSettings) -> None:
    """Only one stack can use a data folder. The lock goes with this process, however it ends."""
    try:
        _make_private(settings.data)
        descriptor = os.open(settings.data / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        settings.refuse(
            "data",
            f"{settings.data} can't be the folder ({error.strerror or error}); choose another",
        )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _refuse(f"another stack works in {settings.data}; stop it, or choose another --data")


def _make_private(data: Path) -> None:
    """Takes away the rights of others that an earlier version left."""
    found = {path.name for path in data.iterdir()} if data.is_dir() else set()
    if _LOCK not in found and found - set(_FOLDERS):
        private.check_folder(data)
    for folder in (data, *(data / name for name in _FOLDERS if name in found)):
        if private.make_folder(folder):
            log.warning("%s was open to others on this machine; now it is yours alone", folder)


def _refuse(fault: str) -> NoReturn:
    """Ends the command, because it can't do what was asked."""
    print(printable.lines(f"dualprocess: {fault}"), file=sys.stderr)
    sys.exit(_BAD_INPUT)


async def _run(settings: LocalSettings, plan: Plan) -> None:
    def say(name: str, line: str) -> None:
        if not settings.quiet:
            print(_shown(settings, name, line), file=sys.stderr, flush=True)

    supervisor = Supervisor(stack.build(settings, plan), settings.data / "logs", say)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    work = asyncio.create_task(_work(settings, plan, supervisor))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            stopped.cancel()
            work.result()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await supervisor.stop()
    finally:
        own_redis.forget(settings.redis_folder)
        metrics_ports.forget(settings.metrics_targets)


async def _work(settings: LocalSettings, plan: Plan, supervisor: Supervisor) -> None:
    await supervisor.start()
    ready = (
        f"dualprocess is ready at {settings.url} (documentation at {settings.url}/docs).\n"
        f"{_page(settings)}"
        f"{plan}; all data is in {settings.data}.\n"
        f"{_keys(settings)}"
        f"{_metrics(settings)}"
        "Ctrl-C stops it."
    )
    print(printable.lines(ready), flush=True)
    await supervisor.wait()


def _page(settings: LocalSettings) -> str:
    if not settings.ui:
        return "The web page is off; it needs --ui and the extra [ui].\n"
    return f"Web page: {settings.url}/ui\n"


def _keys(settings: LocalSettings) -> str:
    if not settings.auth:
        return ""
    # `keys` finds the stack's own Redis by the data folder.
    where = "" if settings.redis_url else f" --data {shlex.quote(str(settings.data))}"
    return f"To make a key: dualprocess keys{where} create --name me --scope submit --scope read\n"


def _metrics(settings: LocalSettings) -> str:
    if not settings.metrics:
        return ""
    return f"Its metrics, for Prometheus: {settings.metrics_targets}\n"


def _shown(settings: LocalSettings, name: str, line: str) -> str:
    if settings.log_format == "text":
        return _prefixed(name, line)
    # Redis writes as it always does, and so does what fails before it knows better.
    return line if line.startswith("{") else as_json(name, "info", line)


def _prefixed(name: str, line: str) -> str:
    if not sys.stderr.isatty():
        return f"{name:>9} | {line}"
    colour = _COLOURS.get(name.partition("-")[0], 37)
    return f"\x1b[{colour}m{name:>9} |\x1b[0m {line}"


def run() -> None:
    """Until a signal ends it, with the settings of the command line."""
    try:
        main()
    except GaveUp as error:
        sys.exit(printable.lines(f"dualprocess: {error}"))

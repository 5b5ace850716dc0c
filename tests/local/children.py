"""``python -m tests.local.children FOLDER``: a supervisor over two sleepers, for killing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from services.local.child import ChildSpec
from services.local.supervisor import Supervisor


def sleeper(name: str, folder: Path) -> ChildSpec:
    """Writes its pid to a file and sleeps."""
    code = (
        f"import os,time; open({str(folder / name)!r},'w').write(str(os.getpid())); time.sleep(99)"
    )

    async def ready() -> bool:
        return (folder / name).exists() and bool((folder / name).read_text())

    return ChildSpec(name, [sys.executable, "-c", code], ready)


async def main(folder: Path) -> None:
    names = ("one", "two")
    supervisor = Supervisor(
        [sleeper(name, folder) for name in names], folder / "logs", lambda name, line: None
    )
    await supervisor.start()
    print("ready", flush=True)
    await supervisor.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

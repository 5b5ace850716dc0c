"""``python -m tests.check_stubs``: the committed gRPC stubs are those that the protos give."""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUBS = Path("dualprocess") / "v1"


def main() -> int:
    with tempfile.TemporaryDirectory() as fresh:
        subprocess.run(["make", "--silent", "proto", f"OUT={fresh}"], cwd=ROOT, check=True)
        there = {path.name for path in (ROOT / STUBS).glob("*_pb2*")}
        wanted = {path.name for path in (Path(fresh) / STUBS).iterdir()}
        names = sorted(there | wanted)
        _, differ, missing = filecmp.cmpfiles(ROOT / STUBS, Path(fresh) / STUBS, names, False)
    for name in sorted([*differ, *missing]):
        print(f"{STUBS / name} is not what proto/ gives; run `make proto` and commit the result")
    return 1 if differ or missing else 0


if __name__ == "__main__":
    sys.exit(main())

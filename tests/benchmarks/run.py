"""Runs every benchmark of this folder, one after the other: `make bench`. Exits non-zero if one of them fails.

    python tests/benchmarks/run.py [--study FOLDER]

With a finished study, the share of its time x cores that went into training and evaluation is shown too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """The number of benchmarks that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path)
    study = parser.parse_args().study
    failed = 0
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"== {script.stem}", flush=True)
        extra = ["--study", str(study)] if study and script.stem == "bench_cli" else []
        failed += subprocess.run([sys.executable, str(script), *extra], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())

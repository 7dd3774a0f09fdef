"""Runs every benchmark of this folder, one after the other, and puts their lines into one table: `make bench`.

    python tests/benchmarks/run.py [--only training metric ...] [--study FOLDER] [--json FILE]

Exits non-zero if one of them fails; the others' lines are shown all the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import table

SCRIPTS = {path.stem.removeprefix("bench_"): path for path in sorted(Path(__file__).parent.glob("bench_*.py"))}


def main() -> int:
    """The number of benchmarks that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--study", type=Path, help="a finished study, to show where its time went")
    parser.add_argument("--json", type=Path, help="write the lines there")
    arguments = parser.parse_args()
    failed, lines = 0, []
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "lines.json"
            study = ["--study", arguments.study] if name == "study" and arguments.study else []
            command = [sys.executable, SCRIPTS[name], "--json", found, *study]
            failed += subprocess.run(command, check=False).returncode != 0
            if found.exists():
                lines += [table.Line(**line) for line in json.loads(found.read_text())["lines"]]
    table.show(lines, "All benchmarks")
    if arguments.json:
        table.write(lines, arguments.json)
    return failed


if __name__ == "__main__":
    sys.exit(main())

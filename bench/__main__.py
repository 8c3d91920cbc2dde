"""Run the benchmarks, write their results as JSON and print them as tables.

``python -m bench [kernels|training|recommend|exchange|...] [pytest options]``
"""

from __future__ import annotations

import sys
from itertools import takewhile
from pathlib import Path

import pytest

from bench.report import print_report

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, or all, and return the highest pytest exit code."""
    names = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = arguments[len(names) :]
    names = names or sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    RESULTS.mkdir(exist_ok=True)
    worst = 0
    for name in names:
        result = RESULTS / f"{name}.json"
        code = pytest.main(
            [
                str(HERE / f"bench_{name}.py"),
                "--override-ini=python_files=bench_*.py",
                "--override-ini=python_functions=bench_*",
                f"--rootdir={HERE.parent}",
                f"--benchmark-json={result}",
                "--benchmark-disable-gc",
                "--benchmark-columns=min,median,rounds",
                "--quiet",
                *options,
            ]
        )
        worst = max(worst, int(code))
        if result.exists() and result.stat().st_size:
            print_report(result)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The tables of the README and of the benchmark page, written from benchmark results.

``python -m bench.tables`` copies the results from ``bench/results`` to ``bench/measured``, which is
committed, and writes the tables between the markers of the pages.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "main", "merged", "tables", "with_tables"]

HERE = Path(__file__).parent
RESULTS, MEASURED = HERE / "results", HERE / "measured"
PAGES = (HERE.parent / "README.md", HERE.parent / "docs/reference/benchmarks.md")
NAMES = ("training", "small")
#: Fields that identify a run of a benchmark.
KEY_FIELDS = ("kind", "data", "blocks", "rank")

Run = dict[str, Any]


def main() -> int:
    """Store the results and write the tables. Return 1 if there are no results."""
    MEASURED.mkdir(exist_ok=True)
    for name in NAMES:
        source = RESULTS / f"{name}.json"
        if source.exists() and source.stat().st_size:
            target = MEASURED / f"{name}.json"
            stored = _selected(json.loads(source.read_text()))
            if target.exists():
                stored = merged(json.loads(target.read_text()), stored)
            target.write_text(json.dumps(stored, indent=1) + "\n")
    missing = [name for name in NAMES if not (MEASURED / f"{name}.json").exists()]
    if missing:
        sys.stderr.write(f"no results of {missing[0]}: run make bench ARGS={missing[0]}\n")
        return 1
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
    return 0


def with_tables(page: str) -> str:
    """Return the page with the current tables between its markers."""
    for name, table in tables().items():
        marker = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page = marker.sub(lambda match, table=table: match[1] + table + match[2], page)
    return page


def tables() -> dict[str, str]:
    """Return all tables by the name of their marker."""
    training, small = (_runs(name) for name in NAMES)
    return {
        "explicit": _explicit([run for run in training if run["kind"] == "explicit"]),
        "implicit": _implicit([run for run in training if run["kind"] == "implicit"]),
        "whole": _whole([run for run in small if "data" in run]),
    }


def _runs(name: str) -> list[Run]:
    runs: list[Run] = json.loads((MEASURED / f"{name}.json").read_text())["runs"]
    return runs


def _selected(document: dict[str, Any]) -> dict[str, Any]:
    """Return the machine and the runs of a pytest-benchmark document."""
    machine = document["machine_info"]
    return {
        "machine": {
            "cpu": machine["cpu"].get("brand_raw"),
            "cores": machine["cpu"].get("count"),
            "python": machine["python_version"],
            **machine.get("versions", {}),
        },
        "runs": [benchmark["extra_info"] for benchmark in document["benchmarks"]],
    }


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the new runs, and the old ones of the same machine that were not repeated."""
    if old["machine"] != new["machine"]:
        return new
    runs = {tuple(run.get(name) for name in KEY_FIELDS): run for run in old["runs"] + new["runs"]}
    return {"machine": new["machine"], "runs": list(runs.values())}


def _explicit(runs: Sequence[Run]) -> str:
    ratios = ("double", "single", "shuffle double", "shuffle single")
    return _markdown(
        ("rank", "double", "single", "shuffled, double", "shuffled, single", "MLlib"),
        (
            (run["rank"], *(f"{run[f'MLlib/{name}']:.1f}" for name in ratios), _s(run["MLlib s"]))
            for run in runs
        ),
    )


def _implicit(runs: Sequence[Run]) -> str:
    contestants = ("double", "single", "CG", "Cholesky", "MLlib")
    return _markdown(
        ("rank", "double", "single", "implicit, CG", "implicit, Cholesky", "MLlib"),
        ((run["rank"], *(_s(run[f"{name} s"]) for name in contestants)) for run in runs),
    )


def _whole(runs: Sequence[Run]) -> str:
    return _markdown(
        ("ratings", "rank", "rddals", "MLlib", "times faster"),
        (
            (
                run["data"],
                run["rank"],
                _s(run["rddals s"]),
                _s(run["MLlib s"]),
                f"{run['MLlib/rddals']:.1f}",
            )
            for run in runs
        ),
    )


def _s(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())

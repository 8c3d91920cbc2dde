"""Conclusions of a study, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from statistics import mean
from typing import Any

from rddals.exchange.choice import readable_bytes
from rddals.study.grid import MLLIB, Combination
from rddals.study.record import PARTS

Run = dict[str, Any]

#: Bandwidth of a shared network in bytes per second: one gigabit.
NETWORK = 125e6
#: Placement costs in seconds below this are noise.
MIN_COST = 0.05
#: Share by which the times of two equal iterations may differ.
NOISE = 0.1


def findings(document: dict[str, Any]) -> list[str]:
    """Return a sentence for each conclusion that the runs in a ``study.json`` support."""
    runs = document["runs"]
    rddals_runs = [run for run in runs if run["exchange"] != MLLIB]
    if not rddals_runs:
        return []
    sentences = [
        _extremes(rddals_runs),
        _prediction(rddals_runs, document["compressed"]["shuffle"]),
        _placements(rddals_runs),
        _growth(rddals_runs, document["placements"]),
        _balance(document["placements"]),
        *_payback(rddals_runs),
        _fastest(rddals_runs),
        _time(rddals_runs),
        _auto(rddals_runs),
        _mllib(runs),
    ]
    return [sentence for sentence in sentences if sentence]


def _bytes(run: Run) -> int:
    return int(run["measured"]["bytes"])


def _seconds(run: Run) -> float:
    return float(run["iteration_seconds"])


def _largest(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the highest rank with its most blocks."""
    most = max((run["rank"], run["blocks"]) for run in runs)
    return [run for run in runs if (run["rank"], run["blocks"]) == most]


def _extremes(runs: Sequence[Run]) -> str | None:
    runs = _largest(runs)
    moving = [run for run in runs if _bytes(run)]
    least, most = min(moving, key=_bytes, default=None), max(moving, key=_bytes, default=None)
    if least is None or most is None or _bytes(least) == _bytes(most):
        return None
    still = dict.fromkeys(run["exchange"] for run in runs if not _bytes(run))
    return (
        f"At rank {least['rank']} with {least['blocks']} blocks, {_how(least)} moves the fewest "
        f"bytes per iteration ({readable_bytes(_bytes(least))}) and {_how(most)} the most "
        f"({readable_bytes(_bytes(most))}, {_times(_bytes(most), _bytes(least))} as many)"
        + (f", and {' and '.join(still)} none." if still else ".")
    )


def _prediction(runs: Sequence[Run], compressed: bool) -> str | None:
    shares = [
        _bytes(run) / run["planned"]["most_bytes"]
        for run in runs
        if run["exchange"] == "shuffle" and run["planned"]["most_bytes"]
    ]
    if not shares:
        return None
    if compressed:
        return (
            f"With compression, the shuffle moved {min(shares):.0%} to {max(shares):.0%} of the "
            "planned bytes."
        )
    if min(shares) == max(shares) == 1:
        return f"The shuffle moved exactly the planned bytes {_in_all(shares)}."
    worst = max(abs(share - 1) for share in shares)
    return f"The shuffle moved the planned bytes to within {worst:.1%} {_in_all(shares)}."


def _in_all(runs: Sequence[Any]) -> str:
    return {1: "in its only run", 2: "in both runs"}.get(len(runs), f"in all {len(runs)} runs")


def _against_hash(runs: Sequence[Run]) -> tuple[Run | None, dict[str, Run]]:
    """Return the largest shuffle run with hash placement, and those with other placements."""
    shuffled = {run["partitioner"]: run for run in _largest(runs) if run["exchange"] == "shuffle"}
    return shuffled.pop("hash", None), shuffled


def _placements(runs: Sequence[Run]) -> str | None:
    hashed, others = _against_hash(runs)
    if hashed is None or not others or not _bytes(hashed):
        return None
    changes = [
        f"{name} {_change(_bytes(run) / _bytes(hashed) - 1)}" for name, run in others.items()
    ]
    return (
        f"Shuffle bytes relative to hash placement, with {hashed['blocks']} blocks: "
        f"{', '.join(changes)}."
    )


def _payback(runs: Sequence[Run]) -> list[str]:
    """Compare the extra cost of each placement with its savings per iteration."""
    hashed, others = _against_hash(runs)
    if hashed is None:
        return []
    sentences = []
    for name, run in others.items():
        cost = run["placing_seconds"] - hashed["placing_seconds"]
        fewer, faster = _bytes(hashed) - _bytes(run), _seconds(hashed) - _seconds(run)
        if fewer > 0 and cost >= MIN_COST:
            by_time = _iterations(cost, faster if faster > NOISE * _seconds(hashed) else 0)
            sentences.append(
                f"Placement by {name} takes {cost:.2f} s longer than by hash. Break-even: "
                f"{by_time} by measured time, {_iterations(cost, fewer / NETWORK)} by bytes alone "
                f"at {NETWORK / 1e6:.0f} MB/s."
            )
    return sentences


def _iterations(cost: float, saved: float) -> str:
    if saved <= 0:
        return "never"
    count = ceil(cost / saved)
    return f"after {count:,} iteration{'s' * (count != 1)}"


def _change(share: float) -> str:
    return f"{share:+.0%}" if abs(share) >= 0.005 else "unchanged"


def _growth(runs: Sequence[Run], placements: Sequence[Run]) -> str | None:
    rank = max(run["rank"] for run in runs)
    hashed = {
        run["blocks"]: run
        for run in runs
        if (run["exchange"], run["partitioner"], run["rank"]) == ("shuffle", "hash", rank)
    }
    few, many = min(hashed, default=0), max(hashed, default=0)
    if few == many or not _bytes(hashed[few]):
        return None
    copies = {
        placement["blocks"]: _copies(placement)
        for placement in placements
        if placement["partitioner"] == "hash"
    }
    return (
        f"With hash placement, {many} blocks shuffle "
        f"{_times(_bytes(hashed[many]), _bytes(hashed[few]))} as many bytes as {few}: a row goes "
        f"to {copies[many]:.1f} blocks on average instead of {copies[few]:.1f}."
    )


def _copies(placement: Run) -> float:
    """Return the mean number of blocks that a user or product row goes to."""
    sides = (placement["users"], placement["products"])
    return float(sum(sum(side["sent"]) for side in sides) / sum(sum(s["ids"]) for s in sides))


def _balance(placements: Sequence[Run]) -> str | None:
    most = max(placement["blocks"] for placement in placements)
    if most == 1:
        return None
    heaviest = {
        placement["partitioner"]: max(
            max(placement[side]["ratings"]) / mean(placement[side]["ratings"])
            for side in ("users", "products")
        )
        for placement in placements
        if placement["blocks"] == most
    }
    listed = ", ".join(f"{excess:.2f} ({name})" for name, excess in heaviest.items())
    return f"The largest of {most} blocks has {listed} times the mean number of ratings."


def _fastest(runs: Sequence[Run]) -> str | None:
    runs = _largest(runs)
    if len(runs) == 1:
        return None
    fastest, least = min(runs, key=_seconds), min(runs, key=_bytes)
    sentence = (
        f"At rank {fastest['rank']} with {fastest['blocks']} blocks, the fastest iteration "
        f"({_seconds(fastest):.3f} s) is {_how(fastest)}"
    )
    if _bytes(fastest) == _bytes(least):
        return f"{sentence}, which also moves the fewest bytes."
    if not _bytes(least):
        return f"{sentence}, which moves {readable_bytes(_bytes(fastest))}."
    return f"{sentence}, which moves {_times(_bytes(fastest), _bytes(least))} the minimum bytes."


def _time(runs: Sequence[Run]) -> str | None:
    totals = {part: sum(run["task_seconds"][part] for run in runs) for part in PARTS}
    whole = sum(totals.values())
    if not whole:
        return None
    shares = ", ".join(f"{part} {seconds / whole:.0%}" for part, seconds in totals.items())
    return f"Task time of an iteration, over all rddals runs: {shares}."


def _auto(runs: Sequence[Run]) -> str | None:
    """Count how often the choice of ``exchange="auto"`` moved the fewest bytes."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run["partitioner"], run["blocks"], run["rank"]), []).append(run)
    judged = [
        (group, chosen)
        for group in groups.values()
        for chosen in group
        if len(group) > 1 and chosen["exchange"] == chosen["auto"]["exchange"]
    ]
    if not judged:
        return None
    fewest = sum(_bytes(chosen) == min(map(_bytes, group)) for group, chosen in judged)
    return (
        f"In {fewest} of {len(judged)} cases, the choice of "
        'exchange="auto" moved the fewest bytes of the exchanges run.'
    )


def _mllib(runs: Sequence[Run]) -> str | None:
    mllib_runs = {Combination.of(run): run for run in runs if run["exchange"] == MLLIB}
    pairs = []
    for run in runs:
        if (run["exchange"], run["partitioner"]) == ("shuffle", "hash"):
            peer = mllib_runs.get(Combination(MLLIB, "hash", run["blocks"], run["rank"]))
            if peer is not None and _bytes(run):
                pairs.append((run, peer))
    if not pairs:
        return None
    moved = _range(_bytes(peer) / _bytes(run) for run, peer in pairs)
    slower = _range(_seconds(peer) / _seconds(run) for run, peer in pairs)
    return (
        f"With the same placement, MLlib moves {moved} times the bytes of the rddals shuffle and "
        f"takes {slower} times as long per iteration."
    )


def _range(values: Iterable[float]) -> str:
    ordered = sorted(values)
    low, high = f"{ordered[0]:.2f}", f"{ordered[-1]:.2f}"
    return low if low == high else f"{low} to {high}"


def _how(run: Run) -> str:
    return f"{run['exchange']} with {run['partitioner']} placement"


def _times(more: float, fewer: float) -> str:
    ratio = more / fewer
    return f"{ratio:.2f} times" if ratio < 10 else f"{ratio:,.0f} times"

"""Checkpoints of streams, and the settings of their tests."""

from __future__ import annotations

import json

import pytest

from rddals import StreamingALS
from stream_models import row_bytes, stored_ratings

RANK, SEED = 2, 11
SETTINGS = {"rank": RANK, "seed": SEED, "blocks": 2, "exchange": "shuffle"}
UPDATES = pytest.mark.parametrize("update", ["sgd", "als"])
#: The second is slow.
BOTH = pytest.mark.parametrize("update", ["sgd", pytest.param("als", marks=pytest.mark.long)])


def state_of(model):
    """Return a model's state for bitwise comparison: rows by id, stored ratings, and counts."""
    state = model.state
    counts = state.ids, state.total, state.ratings, state.batches
    return row_bytes(model), stored_ratings(model), *counts


def stream_at(location, **settings):
    return StreamingALS(**{**SETTINGS, "checkpointLocation": str(location), **settings})


def state_file(location):
    (state,) = (location / "states").glob("*.json")
    return state


def holds_one_state(location):
    """Return whether there is one state and only the levels it names."""
    state = state_file(location)
    assert {path.name for path in (location / "states").iterdir()} == {
        state.name,
        f".{state.name}.crc",
    }
    levels = json.loads(state.read_text())["levels"].values()
    named = [name for part in levels for name, _ in part]
    assert len(named) == len(set(named))
    return {path.name for path in (location / "levels").iterdir()} == set(named)

"""Levels of rows without Spark: dicts stand for RDDs."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rddals.rdds import levels
from rddals.rdds.levels import Levels


class Rows(dict):
    """Rows by id, that are computed and freed once."""

    held = 0

    def hold(self):
        assert self.held == 0
        self.held = 1

    def discard(self):
        assert self.held == 1
        self.held = -1


def united(parts):
    assert all(part.held == 1 for part in parts)
    return Rows({id_: row for part in parts for id_, row in part.items()})


@pytest.fixture(scope="module", autouse=True)
def _without_spark():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "newest_rows", united)
        patch.setattr(levels, "cut_lineage", Rows.hold)
        patch.setattr(levels, "discard", Rows.discard)
        patch.setattr("rddals.rdds.spark.discard", Rows.discard)
        yield


@given(st.lists(st.sets(st.integers(0, 60), min_size=1, max_size=12), min_size=1, max_size=40))
def test_levels_stay_few_and_the_newest_row_counts(batches):
    model, wanted, written = Levels(None), {}, []
    for number, ids in enumerate(batches):
        batch = Rows(dict.fromkeys(ids, number))
        batch.hold()
        wanted |= batch
        grown = model.grown(batch, len(ids), len(wanted)).hold()
        model.let_go()
        model = grown
        written += model.rdds
        assert united(model.rdds) == wanted
        assert len(model.levels) <= 1 + math.log2(len(wanted))
        assert all(below.rows >= 2 * above.rows for below, above in pairwise(model.levels))
        assert all(level.rows >= len(level.blocks) for level in model.levels)
        held = {id(rows) for rows in model.rdds}
        assert all((rows.held == 1) == (id(rows) in held) for rows in written)
    model.let_go()
    assert all(rows.held == -1 for rows in written)


def test_levels_that_another_model_needs_stay():
    old = Levels(None).grown(Rows({1: "a", 2: "a"}), 2, 2).hold()
    for rows in old.rdds:
        rows.hold()
    newer = Rows({2: "b"})
    newer.hold()
    new = old.grown(newer, 1, 2).hold()
    old.let_go()
    assert united(new.rdds) == {1: "a", 2: "b"}
    new.let_go()
    assert all(rows.held == -1 for rows in new.rdds)

"""The SGD step against plain loops, and the length of its steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitioners import HashPartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.kernels import sgd
from rddals.kernels.sgd import sgd_step, squared_error
from stream_reference import ReferenceStream

LAMBDA, GAMMA, MEAN = 0.05, 0.5, 3.0


class Block:
    """Ratings of rows with given degrees, and random rows on both sides."""

    def __init__(self, degrees, rank, seed=0, *, columns=11, scale=1.0, length=1.0):
        rng = np.random.default_rng(seed)
        own = np.repeat(7 * np.arange(len(degrees)) - 5, degrees)
        other = rng.integers(0, columns, len(own))
        stars = (rng.uniform(1, 5, len(own)) * scale).astype(np.float32)
        block = RatingBlock.from_columns(own, other, stars)
        self.block = link(0, block, 0, HashPartitioner(2)).in_block
        self.batch = list(zip(own.tolist(), other.tolist(), stars.tolist(), strict=True))
        self.rows = rng.normal(size=(len(self.block.ids), rank + 1)).astype(np.float32)
        self.anchor = rng.normal(size=self.rows.shape).astype(np.float32)
        self.seen = rng.integers(0, 40, len(self.rows)).astype(np.float32)
        source = rng.normal(size=(columns, rank + 1))
        source[:, :-1] *= length / np.maximum(np.linalg.norm(source[:, :-1], axis=1)[:, None], 1e-9)
        self.other = source.astype(np.float32)
        self.sources = self.other[self.block.source_ids]

    def by_id(self, rows):
        return {
            id_: row.astype(float) for id_, row in zip(self.block.ids.tolist(), rows, strict=True)
        }

    def sgd_step(self, anchor=None, **settings):
        return sgd_step(
            self.block,
            self.rows,
            self.seen,
            self.sources,
            MEAN,
            **{"lambda_": LAMBDA, "gamma": GAMMA, **settings},
            anchor=anchor,
        )

    def expected(self, anchor=None):
        stream = ReferenceStream(self.rows.shape[1] - 1, None, lambda_=LAMBDA, gamma=GAMMA)
        stream.ratings = [MEAN]
        seen = dict(zip(self.block.ids.tolist(), self.seen.tolist(), strict=True))
        other = dict(enumerate(self.other.astype(float)))
        anchors = None if anchor is None else self.by_id(anchor)
        rows = stream.updated_rows(self.batch, self.by_id(self.rows), other, seen, anchors)
        return np.array([rows[id_] for id_ in self.block.ids.tolist()])

    def losses(self, rows, lambda_, anchor=None):
        """Return each id's loss: squared errors, penalty and distance from the anchor."""
        by_id, total = self.by_id(rows), dict.fromkeys(self.block.ids.tolist(), 0.0)
        for id_, other, rating in self.batch:
            x, y = by_id[id_], self.other[other].astype(float)
            error = rating - (MEAN + x[-1] + y[-1] + x[:-1] @ y[:-1])
            total[id_] += error**2 + lambda_ * (x @ x)
        values = np.array(list(total.values()))
        if anchor is not None:
            pull = np.repeat(np.sqrt(self.seen.astype(float))[:, None] / GAMMA, rows.shape[1], 1)
            pull[:, -1] = 1 / GAMMA + self.seen
            values += (pull * (rows.astype(float) - anchor) ** 2).sum(axis=1)
        return values


@pytest.mark.parametrize("chunk", [1, 3, 1 << 13])
@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("anchored", [False, True], ids=["first", "later"])
def test_step_matches_a_loop_over_ratings(monkeypatch, chunk, rank, anchored):
    monkeypatch.setattr(sgd, "CHUNK", chunk)
    block = Block([1, 1, 2, 3, 3, 4, 7, 1, 20], rank)
    anchor = block.anchor if anchored else None
    before = block.rows.copy(), block.sources.copy(), block.anchor.copy()
    stepped = block.sgd_step(anchor)
    assert stepped.dtype == np.float32
    np.testing.assert_allclose(stepped, block.expected(anchor), rtol=1e-5, atol=1e-6)
    for array, original in zip((block.rows, block.sources, block.anchor), before, strict=True):
        np.testing.assert_array_equal(array, original)


@pytest.mark.parametrize("chunk", [1, 3, 1 << 13])
def test_squared_error_matches_a_loop_over_ratings(monkeypatch, chunk):
    monkeypatch.setattr(sgd, "CHUNK", chunk)
    block = Block([1, 2, 3, 3, 9], 3)
    actual = squared_error(block.block, block.rows, block.sources, MEAN)
    assert actual == pytest.approx(block.losses(block.rows, 0.0).sum(), rel=1e-6)


def test_anchor_at_the_row_shortens_the_step():
    block = Block([1, 2, 30], 3)
    free, pulled = block.sgd_step(), block.sgd_step(block.rows)
    moved, less = free - block.rows, pulled - block.rows
    assert np.all(np.abs(less) <= np.abs(moved) + 1e-6)
    assert np.all(moved * less >= 0)


@given(
    degrees=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    rank=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1.0, 1000.0]),
    length=st.sampled_from([0.0, 1.0, 50.0]),
    gamma=st.sampled_from([0.01, 0.5, 100.0]),
    lambda_=st.sampled_from([0.0, 0.05, 30.0]),
)
@settings(deadline=None, max_examples=60)
def test_step_never_raises_the_loss_of_an_id(degrees, rank, seed, scale, length, gamma, lambda_):
    block = Block(degrees, rank, seed, scale=scale, length=length)
    before = block.losses(block.rows, lambda_)
    after = block.losses(block.sgd_step(lambda_=lambda_, gamma=gamma), lambda_)
    assert np.all(after <= before * (1 + 1e-5) + 1e-5)


@pytest.mark.parametrize("anchored", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("length", [1.0, 50.0])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_many_ratings_at_once_do_not_diverge(scale, length, anchored):
    block = Block([500, 1, 80], 8, scale=scale, length=length, columns=600)
    block.seen[:] = 0
    anchor = block.rows.copy() if anchored else None
    errors = [block.losses(block.rows, LAMBDA, anchor)]
    for _ in range(30):
        block.rows = block.sgd_step(anchor)
        assert np.isfinite(block.rows).all()
        errors.append(block.losses(block.rows, LAMBDA, anchor))
        assert np.all(errors[-1] <= errors[-2] * (1 + 1e-5))
    assert np.all(errors[-1] < errors[0])


def test_single_rating_reduces_the_error():
    block = Block([1], 8)
    block.seen[:] = 0
    block.rows[:] = 0
    before = block.losses(block.rows, 0.0) ** 0.5
    after = block.losses(block.sgd_step(), 0.0) ** 0.5
    assert 0.05 * before < after < 0.7 * before


def test_bias_is_the_shrunken_mean_for_any_batching():
    rng = np.random.default_rng(3)
    stars = rng.integers(1, 6, 300).astype(np.float32)
    expected = (stars - MEAN).sum(dtype=float) / (1 / GAMMA + len(stars))
    for sizes in ([300], [1] * 300, [1, 299], [150, 1, 99, 50]):
        row, seen = np.zeros((1, 3), np.float32), np.zeros(1, np.float32)
        for batch in np.split(stars, np.cumsum(sizes)[:-1]):
            ratings = RatingBlock.from_columns(np.ones(len(batch)), np.arange(len(batch)), batch)
            block = link(0, ratings, 0, HashPartitioner(1)).in_block
            zeros = np.zeros((len(batch), 3), np.float32)
            row = sgd_step(block, row, seen, zeros, MEAN, lambda_=0.0, gamma=GAMMA)
            seen += len(batch)
        assert row[0, -1] == pytest.approx(expected, abs=1e-5), sizes
        assert not row[0, :-1].any()


def test_ids_with_more_ratings_move_less():
    block = Block([1, 1], 4)
    block.rows[1] = block.rows[0]
    moved = []
    for seen in (0, 10, 1000):
        block.seen[:] = seen
        moved.append(np.abs(block.sgd_step() - block.rows))
    assert np.all(moved[0] >= moved[1])
    assert np.all(moved[1] > moved[2])
    assert np.all(moved[2] > 0)


def test_overflow_does_not_raise():
    block = Block([2], 1)
    block.rows[:] = 3e38
    block.anchor[:] = -3e38
    with np.errstate(all="raise", under="ignore"):
        assert block.sgd_step(block.anchor).shape == (1, 2)

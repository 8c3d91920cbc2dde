"""Training end to end: the loss, the events and released resources."""

from __future__ import annotations

import numpy as np
import pytest

import dense_reference as dense
from rddals import ALS, HalfStepDone, LinksBuilt, RatingError, TrainingDone
from rddals.exchange import EXCHANGES

SETTINGS = dict(blocks=2, seed=5, lambda_=0.1, listeners=())


def assert_same(one, other):
    for a, b in zip(one.collected_factors(), other.collected_factors(), strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.rows, b.rows)


def lineage(rdd):
    """Return the lines of an RDD's lineage."""
    return rdd.toDebugString().decode().strip().splitlines()


def dense_objective(model, ratings, **settings):
    factors = model.collected_factors()
    users, products, stars = (np.array(column) for column in zip(*ratings, strict=True))
    rows, columns = (
        np.searchsorted(f.ids, ids) for f, ids in zip(factors, (users, products), strict=True)
    )
    X, Y = (f.rows.astype(float) for f in factors)
    return dense.objective(rows, columns, stars, X, Y, **settings)


def drop_cached_blocks(sc):
    def listener(event):
        if isinstance(event, LinksBuilt):
            for rdd in dict(sc._jsc.getPersistentRDDs()).values():
                rdd.unpersist(True)

    return listener


def raise_at(kind):
    class Interrupted(Exception):
        pass

    def listener(event):
        if isinstance(event, kind):
            raise Interrupted

    return listener, Interrupted


@pytest.mark.long
def test_300_iterations_without_a_checkpoint_directory(sc, small_matrix, footprint, stages_of):
    sc.setJobGroup("300 iterations", "")
    assert sc.getCheckpointDir() is None
    model = ALS.train(
        sc.parallelize(small_matrix, 1), 2, 300, exchange="shuffle", **SETTINGS | {"blocks": 1}
    )
    assert len(model.history) == 600
    assert model.history[-1].loss <= model.history[19].loss
    # Between two cuts a job has the 20 half-steps since the last cut, and the links' shuffle.
    tracker = sc.statusTracker()
    jobs = tracker.getJobIdsForGroup("300 iterations")
    assert max(len(tracker.getJobInfo(job).stageIds) for job in jobs) <= 24
    for features in (model.userFeatures(), model.productFeatures()):
        assert len(lineage(features)) <= 5
    assert [kind for kind, _ in footprint.remaining()] == ["persisted RDD"] * 2


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_superseded_checkpoints_are_deleted(sc, small_matrix, checkpoint_dir, footprint, exchange):
    model = ALS.train(
        sc.parallelize(small_matrix, 2), 2, 5, exchange=exchange, checkpointInterval=2, **SETTINGS
    )
    remaining_files = {path.name for path in checkpoint_dir.glob("*/rdd-*")}
    tables = [table.blocks for table in model.factors.tables]
    assert remaining_files == {table.getCheckpointFile().rsplit("/")[-1] for table in tables}
    assert [kind for kind, _ in footprint.remaining()] == ["persisted RDD"] * 2


def test_checkpoints_do_not_change_the_model(sc, small_matrix, checkpoint_dir):
    source = sc.parallelize(small_matrix, 2)
    often = ALS.train(source, 2, 3, exchange="shuffle", checkpointInterval=1, **SETTINGS)
    never = ALS.train(source, 2, 3, exchange="shuffle", checkpointInterval=100, **SETTINGS)
    assert_same(often, never)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_tol_stops_early(sc, small_matrix, footprint, exchange):
    model = ALS.train(
        sc.parallelize(small_matrix, 2),
        2,
        30,
        exchange=exchange,
        tol=0.1,
        **SETTINGS | {"blocks": 1},
    )
    losses = [done.loss for done in model.history if done.side == "users"]
    improved = -np.diff(losses) / losses[:-1]
    assert len(losses) < 30
    assert improved[-1] < 0.1
    assert (improved[:-1] >= 0.1).all()
    assert [kind for kind, _ in footprint.remaining()] == ["persisted RDD"] * 2


def test_warm_start_continues_training(sc, small_matrix):
    source = sc.parallelize(small_matrix, 2)
    first = ALS.train(source, 2, 1, **SETTINGS)
    second = ALS.train(source, 2, 1, initialModel=first, **SETTINGS)
    assert_same(second, ALS.train(source, 2, 2, **SETTINGS))


def test_zero_iterations_give_the_initial_factors(sc, small_matrix, footprint):
    model = ALS.train(sc.parallelize(small_matrix, 2), 2, 0, **SETTINGS)
    assert model.history == ()
    for factors, ids in zip(model.collected_factors(), (0, 1), strict=True):
        assert factors.ids.tolist() == sorted({rating[ids] for rating in small_matrix})
        np.testing.assert_allclose(np.linalg.norm(factors.rows, axis=1), 1, rtol=1e-6)
    assert [kind for kind, _ in footprint.remaining()] == ["persisted RDD"] * 2


def test_model_depends_on_the_seed_alone(sc, small_matrix):
    source, again = sc.parallelize(small_matrix, 2), sc.parallelize(small_matrix[::-1], 3)
    one = ALS.train(source, 2, 2, **SETTINGS)
    assert_same(one, ALS.train(again, 2, 2, **SETTINGS))
    other = ALS.train(source, 2, 2, **SETTINGS | {"seed": 6})
    assert not np.allclose(one.collected_factors()[0].rows, other.collected_factors()[0].rows)


@pytest.mark.parametrize("settings", [{}, {"alpha": 1.5}], ids=["explicit", "implicit"])
@pytest.mark.parametrize("exchange", ["shuffle", "broadcast"])
def test_events_report_the_loss(sc, ratings, exchange, settings):
    events = []
    train = ALS.trainImplicit if settings else ALS.train
    settings_used = SETTINGS | {"listeners": [events.append], "lambda_": 0.05} | settings
    model = train(sc.parallelize(ratings, 2), 3, 3, exchange=exchange, **settings_used)

    kinds = [type(event) for event in events]
    assert kinds == [LinksBuilt] + [HalfStepDone] * 6 + [TrainingDone]
    built, *half_steps, done = events
    assert (built.ratings, built.users, built.products) == (len(ratings), 30, 40)
    assert built.exchange.exchange == exchange
    assert [(e.iteration, e.side) for e in half_steps] == [
        (i, side) for i in (1, 2, 3) for side in ("products", "users")
    ]
    assert model.history == tuple(half_steps)
    assert (done.iterations, done.loss) == (3, half_steps[-1].loss)

    losses = [event.loss for event in half_steps]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    expected = dense_objective(model, ratings, lambda_=0.05, **settings)
    assert losses[-1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", [LinksBuilt, HalfStepDone, TrainingDone])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_raising_listener_releases_everything(sc, small_matrix, footprint, exchange, kind):
    listener, error = raise_at(kind)
    settings_used = SETTINGS | {"listeners": [listener]}
    with pytest.raises(error):
        ALS.train(
            sc.parallelize(small_matrix, 2), 2, 1, exchange=exchange, tol=1e-9, **settings_used
        )
    assert not footprint.remaining()


def test_raising_listener_deletes_checkpoints(sc, small_matrix, checkpoint_dir, footprint):
    listener, error = raise_at(TrainingDone)
    settings_used = SETTINGS | {"listeners": [listener], "checkpointInterval": 1}
    with pytest.raises(error):
        ALS.train(sc.parallelize(small_matrix, 2), 2, 2, exchange="shuffle", **settings_used)
    assert not footprint.remaining()
    assert not list(checkpoint_dir.glob("*/rdd-*"))


def test_invalid_rating_releases_everything(sc, small_matrix, footprint):
    bad = [*small_matrix, (1, 2, float("nan"))]
    with pytest.raises(RatingError, match="nan"):
        ALS.train(sc.parallelize(bad, 2), 2, 1, **SETTINGS)
    assert not footprint.remaining()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_lost_link_blocks_are_rebuilt(sc, small_matrix, footprint, exchange):
    source = sc.parallelize(small_matrix, 2)
    expected = ALS.train(source, 2, 1, exchange=exchange, **SETTINGS)
    settings_used = SETTINGS | {"listeners": [drop_cached_blocks(sc)]}
    model = ALS.train(source, 2, 1, exchange=exchange, **settings_used)
    again = ALS.train(source, 2, 1, exchange=exchange, **SETTINGS)
    assert_same(again, model)
    model.unpersist()
    again.unpersist()
    # `expected` was dropped along with the links; its recorded loss remains.
    assert expected.history[-1].loss == again.history[-1].loss
    assert not footprint.remaining("shuffle file", "broadcast file", "accumulator")

"""Resources that streams release, also after failures in the middle of a batch."""

import gc
from itertools import pairwise

import pytest

from rddals import SettingError, StreamingALS
from rddals.streaming import levels as levels_module
from stream_models import SETTINGS, levels_of


def test_only_the_last_models_levels_stay_persisted(footprint, rdds):
    als = StreamingALS(**SETTINGS)
    for rdd in (*rdds, rdds[1]):
        als.train(rdd)
        remaining = footprint.remaining()
        assert [kind for kind, _ in remaining] == ["persisted RDD"] * levels_of(als.model)
    model, als.model = als.model, None
    del als
    assert model.batches == 4
    del model
    assert not footprint.remaining()


def test_dropped_models_are_released_at_once(footprint, rdds):
    """Without waiting for the cyclic garbage collector."""
    gc.collect()
    gc.disable()
    try:
        model = StreamingALS.train(rdds[0], **SETTINGS)
        model = model.train(rdds[2])
        assert len(footprint.remaining("persisted RDD")) == levels_of(model)
        del model
        als = StreamingALS(**SETTINGS)
        als.train(rdds[0])
        del als
        assert not footprint.remaining()
    finally:
        gc.enable()


def test_recommendations_are_released_with_the_model(footprint, rdds):
    model = StreamingALS.train(rdds[0], **SETTINGS)
    result = model.recommendProductsForUsers(2, excludeSeen=rdds[0])
    assert result.count() == model.users
    again = model.recommendUsersForProducts(2)
    assert again.count() == model.products
    model.unpersist()
    assert not footprint.remaining("broadcast file", "shuffle file", "accumulator")


@pytest.mark.parametrize("exchange", ["shuffle", "broadcast"])
def test_nondeterministic_partitioner_raises(sc, footprint, batches, exchange):
    def random_block(id_):
        import random

        return random.getrandbits(1)

    als = StreamingALS(
        rank=2, userPartitioner=random_block, userBlocks=2, productBlocks=2, exchange=exchange
    )
    with pytest.raises(SettingError, match="the same block in every process"):
        als.train(sc.parallelize(batches[0], 2))
    assert als.model is None
    assert not footprint.remaining()


def test_late_failure_releases_everything(monkeypatch, footprint, rdds):
    """The failure is between storing users' rows and products' rows."""
    als = StreamingALS(**SETTINGS)
    als.train(rdds[0])
    calls = []

    def fail_second_call(rdd):
        calls.append(rdd)
        if len(calls) == 2:
            raise KeyboardInterrupt
        cut_lineage(rdd)

    cut_lineage = levels_module.cut_lineage
    monkeypatch.setattr(levels_module, "cut_lineage", fail_second_call)
    with pytest.raises(KeyboardInterrupt):
        als.train(rdds[0])
    monkeypatch.undo()
    calls.clear()
    assert als.model.batches == 1
    assert len(footprint.remaining()) == levels_of(als.model)
    als.train(rdds[1])
    assert len(footprint.remaining()) == levels_of(als.model)


def test_checkpoints_are_deleted_with_their_levels(rdds, checkpoint_dir):
    als = StreamingALS(**SETTINGS)
    for rdd in rdds:
        als.train(rdd)
    files = [path for path in checkpoint_dir.rglob("rdd-*") if path.is_dir()]
    assert len(files) == levels_of(als.model)
    als.model.unpersist()
    assert not [path for path in checkpoint_dir.rglob("rdd-*") if path.is_dir()]


@pytest.mark.long
def test_levels_stay_few(sc, footprint):
    """For any number of small batches and any ids."""
    als = StreamingALS(rank=1, blocks=1, seed=1, exchange="broadcast")
    most = 0
    for number in range(12):
        als.train(sc.parallelize([(number, number % 7, 3.0), (number // 2, number, 4.0)], 1))
        users, products = als.model.state.sides
        for side, ids in ((users, als.model.users), (products, als.model.products)):
            rows = [level.rows for level in side.levels]
            assert all(below >= 2 * above for below, above in pairwise(rows))
            assert sum(rows) <= 2 * ids
            most = max(most, len(rows))
    assert 2 <= most <= 4
    assert (als.model.users, als.model.products, als.model.ratings) == (12, 12, 24)
    assert len(footprint.remaining()) == levels_of(als.model)

import numpy as np

from rddals.blocks.popularity import MOST, Popularity


def of(ids, counts):
    return Popularity.of(np.array(ids, dtype=np.int32), np.array(counts, dtype=np.int32))


def test_most_ratings_first_then_by_id():
    popular = of([7, -3, 5, 1], [2, 9, 2, 0])
    assert popular.ids.tolist() == [-3, 5, 7]
    assert popular.counts.tolist() == [9, 2, 2]


def test_the_most_popular_of_several_blocks():
    merged = Popularity.merged([of([1, 2], [3, 1]), Popularity.none(), of([9], [2])])
    assert merged.ids.tolist() == [1, 9, 2]
    assert Popularity.merged([]).ids.tolist() == []


def test_no_more_are_remembered_than_said():
    popular = of(np.arange(2 * MOST), np.arange(2 * MOST))
    assert popular.ids.tolist() == list(range(2 * MOST - 1, MOST - 1, -1))

import numpy as np

from rddals.blocks.popularity import MAX_POPULAR, Popularity


def popularity_of(ids, counts):
    return Popularity.of(np.array(ids, dtype=np.int32), np.array(counts, dtype=np.int32))


def test_most_ratings_first_then_by_id():
    popular = popularity_of([7, -3, 5, 1], [2, 9, 2, 0])
    assert popular.ids.tolist() == [-3, 5, 7]
    assert popular.counts.tolist() == [9, 2, 2]


def test_popularity_of_several_blocks_is_merged():
    merged = Popularity.merged(
        [popularity_of([1, 2], [3, 1]), Popularity.merged([]), popularity_of([9], [2])]
    )
    assert merged.ids.tolist() == [1, 9, 2]
    assert Popularity.merged([]).ids.tolist() == []


def test_only_the_most_popular_ids_are_stored():
    popular = popularity_of(np.arange(2 * MAX_POPULAR), np.arange(2 * MAX_POPULAR))
    assert popular.ids.tolist() == list(range(2 * MAX_POPULAR - 1, MAX_POPULAR - 1, -1))

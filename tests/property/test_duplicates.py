import math
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from rddals.blocks.ratings import RatingBlock

ids = st.sampled_from([-(2**31), -1, 0, 1, 2**31 - 1])
rows = st.lists(st.tuples(ids, ids, st.integers(-100, 100).map(lambda n: n / 4)), max_size=30)
COMBINED = {"last": lambda rs: rs[-1], "mean": lambda rs: sum(rs) / len(rs), "sum": sum}


@given(rows, st.sampled_from(sorted(COMBINED)))
def test_each_pair_has_one_combined_rating(rows, duplicates):
    several = defaultdict(list)
    for user, product, rating in rows:
        several[user, product].append(rating)
    combined = RatingBlock.from_rows(rows).combined(duplicates)
    pairs = list(zip(combined.users.tolist(), combined.products.tolist(), strict=True))
    assert sorted(pairs) == sorted(several)
    for pair, rating in zip(pairs, combined.ratings.tolist(), strict=True):
        assert math.isclose(rating, COMBINED[duplicates](several[pair]), rel_tol=1e-6)

"""Length of a segment, early convergence, and cores of its task."""

import os

import pytest

from rddals.rdds.one_task import local_cores
from rddals.training.local_alternation import segment_iterations
from rddals.training.segment import converged


@pytest.mark.parametrize(
    ("remaining", "seconds", "iterations"),
    [
        (10, 0.001, 10),  # all that remain
        (1000, 0.001, 1000),
        (5000, 0.001, 1000),  # a second
        (10, 0.3, 4),
        (10, 0.6, 2),
        (10, 0.9, 2),
        (10, 7.0, 1),  # at least one
        (1, 0.0, 1),
    ],
)
def test_segment_takes_about_a_second(remaining, seconds, iterations):
    assert segment_iterations(remaining, seconds) == iterations


@pytest.mark.parametrize(
    ("before", "after", "tol", "ends"),
    [
        (None, 5.0, 0.1, False),  # no previous loss
        (10.0, 9.5, 0.1, True),
        (10.0, 8.5, 0.1, False),
        (10.0, 10.0, 0.0, False),  # no tolerance, no early end
        (10.0, 10.5, 1e-9, True),
    ],
)
def test_training_converges_by_relative_gain(before, after, tol, ends):
    assert converged(before, after, tol) is ends


@pytest.mark.parametrize(
    ("master", "cores"),
    [
        ("local", 1),
        ("local[3]", 3),
        ("local[ 16 ]", 16),
        ("local[4,2]", 4),
        ("local[*]", os.cpu_count()),
        ("local[*, 2]", os.cpu_count()),
    ],
)
def test_cores_of_a_local_master(master, cores):
    assert local_cores(master) == cores

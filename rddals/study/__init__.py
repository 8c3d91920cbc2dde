"""A grid of trainings, run for real: what each moved, beside what was planned, as a report."""

from rddals.study.grid import Combination, Grid
from rddals.study.record import Record
from rddals.study.runs import Study

__all__ = ["Combination", "Grid", "Record", "Study"]

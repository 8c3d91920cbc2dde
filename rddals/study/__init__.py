"""Studies: train over a grid of settings and report planned and measured data movement."""

from rddals.study.grid import Combination, Grid
from rddals.study.record import Record
from rddals.study.runs import Study

__all__ = ["Combination", "Grid", "Record", "Study"]

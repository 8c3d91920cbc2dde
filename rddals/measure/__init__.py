"""Bytes, records and seconds of a Spark program by stage, from Spark's events.

=====================  ===========================================================================
`ShuffleMeter`         Measures the code inside a ``with`` block.
`read_event_log`       Measures a program from its event log.
`Measured`             The result of both.
=====================  ===========================================================================
"""

from rddals.measure.events import read_event_log
from rddals.measure.meter import ShuffleMeter
from rddals.measure.stages import Measured, StageMeasure, StepMeasure, Traffic

__all__ = [
    "Measured",
    "ShuffleMeter",
    "StageMeasure",
    "StepMeasure",
    "Traffic",
    "read_event_log",
]

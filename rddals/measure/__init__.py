"""Bytes, records and seconds of a Spark program by stage, from Spark's events.

=====================  ===========================================================================
`ShuffleMeter`         Measures the code inside a ``with`` block.
`read_event_log`       Measures a program from its event log.
`Measured`             The result of both.
=====================  ===========================================================================
"""

from rddals.measure.events import read_event_log
from rddals.measure.measures import Measured, StageMeasure, StepMeasure, Traffic
from rddals.measure.meter import ShuffleMeter

__all__ = [
    "Measured",
    "ShuffleMeter",
    "StageMeasure",
    "StepMeasure",
    "Traffic",
    "read_event_log",
]

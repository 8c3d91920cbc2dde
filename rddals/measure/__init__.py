"""What a Spark program moved: bytes, records and seconds by stage, out of Spark's own events.

=====================  ===========================================================================
`ShuffleMeter`         around any code that uses a SparkContext
`read_event_log`       of a program that has run, whatever it was
`Measured`             what either finds
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

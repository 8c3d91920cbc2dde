import subprocess
import sys

import pytest

import partitioners
import rddals


def test_public_names_of_rddals():
    assert rddals.__all__ == [
        "ALS",
        "BatchLearned",
        "EventLogError",
        "HalfStepDone",
        "InconsistentRatingsError",
        "LinksBuilt",
        "MatrixFactorizationModel",
        "MeterError",
        "ModelExistsError",
        "ModelFormatError",
        "ModelReleasedError",
        "OverflowingRatingsError",
        "Rating",
        "RatingBlock",
        "RatingError",
        "RatingTypeError",
        "RddalsError",
        "SettingError",
        "SingularSystemError",
        "SourceError",
        "StreamingALS",
        "StreamingModel",
        "StudyError",
        "TrainingDone",
        "UnknownIdError",
        "install",
        "plan",
        "uninstall",
    ]
    assert all(hasattr(rddals, name) for name in rddals.__all__)


def test_unknown_name_raises():
    with pytest.raises(AttributeError, match="'rddals' has no attribute 'Ratings'"):
        rddals.Ratings  # noqa: B018 - the access is the test
    assert set(rddals.__all__) <= set(dir(rddals))


@pytest.mark.parametrize("costly", ["pandas", "pyspark.ml", "pyspark.mllib", "scipy.optimize"])
def test_training_worker_imports_few_modules(costly):
    tasks = "rddals.exchange, rddals.rdds.factors, rddals.rdds.links, rddals.streaming.block_step"
    tasks += ", rddals.training.train"
    code = f"import pyspark.worker, sys, {tasks}; print('{costly}' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_public_names_of_partitioners():
    assert partitioners.__all__ == [
        "DegreeBalancedPartitioner",
        "FunctionPartitioner",
        "HashPartitioner",
        "LocalityPartitioner",
        "Partitioner",
        "RangePartitioner",
    ]
    assert all(hasattr(partitioners, name) for name in partitioners.__all__)

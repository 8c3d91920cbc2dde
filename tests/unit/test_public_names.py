import partitioners
import rddals


def test_the_public_names():
    assert rddals.__all__ == [
        "ALS",
        "HalfStepDone",
        "InconsistentRatingsError",
        "LinksBuilt",
        "MatrixFactorizationModel",
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
        "TrainingDone",
        "UnknownIdError",
    ]
    assert all(hasattr(rddals, name) for name in rddals.__all__)


def test_the_public_names_of_partitioners():
    assert partitioners.__all__ == [
        "DegreeBalancedPartitioner",
        "FunctionPartitioner",
        "HashPartitioner",
        "Partitioner",
        "RangePartitioner",
    ]
    assert all(hasattr(partitioners, name) for name in partitioners.__all__)

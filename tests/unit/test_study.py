"""Grids, records, findings and figures of studies, without running one."""

import json

import pytest

from rddals.errors import StudyError
from rddals.study.findings import findings
from rddals.study.grid import MLLIB, Combination, Grid
from rddals.study.record import COLUMNS, SCHEMA, Record

SUBJECT = {
    "ratings": {"ratings": 9, "digest": "1"},
    "settings": {"seed": 1},
    "compressed": {"shuffle": False, "broadcast": False},
}
ABOUT = {"paths": ["a.csv"]}


def run(exchange="shuffle", partitioner="hash", blocks=2, rank=2, moved=100, seconds=1.0, **more):
    """Return a run as study.json stores it."""
    is_mllib = exchange == MLLIB
    sides = {"users_bytes": moved // 2, "products_bytes": moved - moved // 2, "messages": 8}
    return {
        "exchange": exchange,
        "partitioner": partitioner,
        "blocks": blocks,
        "rank": rank,
        "auto": None if is_mllib else {"exchange": "shuffle", "reason": "it does"},
        "planned": None if is_mllib else {"least_bytes": moved, "most_bytes": moved, **sides},
        "measured": {"bytes": moved, **sides},
        "task_seconds": dict.fromkeys(
            ("compute", "serialisation", "shuffle", "rest"), None if is_mllib else seconds / 2
        ),
        "iteration_seconds": seconds,
        "placing_seconds": None if is_mllib else 0.0,
        "training_seconds": 5 * seconds,
        "loss": None if is_mllib else 3.0,
        "half_steps": [],
        "stages": [
            {
                "stage": 0, "name": "count", "step": step, "tasks": 2, "began": 0.0, "ended": 1.0,
                "task_seconds": [0.1, 0.2, 0.3], "read": 10, "written": 20,
            }
            for step in ("links", "1 products", None)
        ],
        **more,
    }  # fmt: skip


def placement(partitioner="hash", blocks=2, heaviest=6):
    side = {
        "ids": [2] * blocks,
        "ratings": [heaviest] + [2] * (blocks - 1),
        "sent": [blocks] * blocks,
        "rows_between": [[1] * blocks] * blocks if blocks < 129 else None,
    }
    return {
        "partitioner": partitioner,
        "blocks": blocks,
        "fit_seconds": 0.0,
        "users": side,
        "products": side,
    }


def study(runs, placements=(), compressed=False):
    return {
        **SUBJECT,
        "compressed": {"shuffle": compressed, "broadcast": False},
        "runs": list(runs),
        "placements": list(placements),
    }


def test_grid_is_the_cartesian_product():
    grid = Grid(("shuffle", "join"), ("hash", "range"), (2, 4), (10,), mllib=True)
    combinations = grid.combinations()
    assert len(combinations) == len(set(combinations)) == 2 * 2 * 2 + 2
    assert combinations[-1] == Combination(MLLIB, "hash", 4, 10)
    assert grid.missing(combinations[:-1]) == combinations[-1:]
    assert str(combinations[0]) == "shuffle, hash, 2 blocks, rank 10"


def test_record_is_read_back(tmp_path):
    record = Record(tmp_path / "new" / "study", SUBJECT, ABOUT)
    assert record.done == []
    record.add_placement(placement())
    record.add_placement(placement())
    record.add(run())
    again = Record(tmp_path / "new" / "study", SUBJECT, {"paths": ["b.csv"]})
    assert again.done == [Combination("shuffle", "hash", 2, 2)]
    assert again.document == {**record.document, "paths": ["b.csv"]}
    assert len(again.document["placements"]) == 1
    assert [path.name for path in (tmp_path / "new" / "study").iterdir()] == ["study.json"]


def test_failed_write_leaves_the_file_intact(tmp_path, monkeypatch):
    record = Record(tmp_path, SUBJECT, ABOUT)
    record.add(run())
    before = (tmp_path / "study.json").read_text()
    monkeypatch.setattr(json, "dumps", lambda *_, **__: "half of " + "\udc80")  # cannot be encoded
    with pytest.raises(UnicodeEncodeError):
        record.add(run(blocks=4))
    assert (tmp_path / "study.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a study"),
        ("[]", "is not a study"),
        ('{"name": 1}', "is not a study"),
        (json.dumps({"schema": SCHEMA + 1}), f"has schema {SCHEMA + 1}, but this version of"),
        (
            json.dumps({"schema": SCHEMA, **SUBJECT, "settings": {"seed": 2}}),
            "has settings.seed 2, but this study has 1",
        ),
        (
            json.dumps({"schema": SCHEMA, **SUBJECT, "compressed": {"shuffle": True}}),
            "has compressed.shuffle True, but this study has False",
        ),
        (json.dumps({"schema": SCHEMA, **SUBJECT}), "is not a study"),
    ],
)
def test_folder_of_another_study_raises(tmp_path, content, message):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(StudyError, match=message):
        Record(tmp_path, SUBJECT, ABOUT)
    assert (tmp_path / "study.json").read_text() == content


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"measured": {"bytes": "abc"}}, "in run 1, 'users_bytes' is missing"),
        ({"measured": {**run()["measured"], "bytes": "abc"}}, "measured_bytes is 'abc'"),
        ({"half_steps": None}, "half_steps is None"),
        ({"planned": 7}, "wrong type"),
        ({"rank": "2"}, "rank is '2'"),
        ({"loss": [3]}, r"loss is \[3\]"),
    ],
)
def test_damaged_study_raises(tmp_path, fault, message):
    document = {"schema": SCHEMA, **SUBJECT, "runs": [run(), run(**fault)], "placements": []}
    (tmp_path / "study.json").write_text(json.dumps(document))
    with pytest.raises(StudyError, match=f"study.json is damaged: .*{message}.* Pass another"):
        Record(tmp_path, SUBJECT, ABOUT)


def test_folder_that_cannot_be_created_raises(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"):
        Record(tmp_path / "file" / "study", SUBJECT, ABOUT)


def test_csv_has_one_line_per_run(tmp_path):
    record = Record(tmp_path, SUBJECT, ABOUT)
    record.add(run(moved=101))
    record.add(run(exchange=MLLIB, moved=300))
    header, own, mllib = record.write_csv().read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert own.startswith("shuffle,hash,2,2,101,101,50,51,8,101,50,51,8,0.5,")
    assert mllib.startswith("MLlib,hash,2,2,,,,,,300,150,150,8,,,,,")


def test_findings():
    runs = [
        run(moved=1000),
        run("join", moved=9000, seconds=0.5),
        run(blocks=4, moved=2000),
        run("join", blocks=4, moved=9000, seconds=0.5),
        run(partitioner="locality", blocks=4, moved=1500),
        run(MLLIB, blocks=4, moved=3000, seconds=2.0),
    ]
    placements = [placement(), placement(blocks=4), placement("locality", 4, heaviest=2)]
    sentences = " ".join(findings(study(runs, placements)))
    for sentence in (
        "At rank 2 with 4 blocks, shuffle with locality placement moves the fewest bytes per "
        "iteration (1.5 KiB) and join with hash placement the most (8.8 KiB, 6.00 times as many).",
        "The shuffle moved exactly the planned bytes in all 3 runs.",
        "Shuffle bytes relative to hash placement, with 4 blocks: locality -25%.",
        "With hash placement, 4 blocks shuffle 2.00 times as many bytes as 2: a row goes to 2.0 "
        "blocks on average instead of 1.0.",
        "The largest of 4 blocks has 2.00 (hash), 1.00 (locality) times the mean number",
        "At rank 2 with 4 blocks, the fastest iteration (0.500 s) is join with hash placement, "
        "which moves 6.00 times the minimum bytes.",
        "compute 25%, serialisation 25%, shuffle 25%, rest 25%.",
        'In 2 of 2 cases, the choice of exchange="auto" moved the fewest bytes',
        "With the same placement, MLlib moves 1.50 times the bytes of the rddals shuffle and takes "
        "2.00 times as long per iteration.",
    ):
        assert sentence in sentences


def test_findings_with_an_exchange_that_moves_nothing():
    runs = [run(moved=1024), run("join", moved=2048, seconds=0.4), run("local", moved=0)]
    sentences = " ".join(findings(study(runs, [placement()])))
    assert (
        "shuffle with hash placement moves the fewest bytes per iteration (1.0 KiB) and join with "
        "hash placement the most (2.0 KiB, 2.00 times as many), and local none." in sentences
    )
    assert "(0.400 s) is join with hash placement, which moves 2.0 KiB." in sentences


def test_finding_on_the_cost_of_placing():
    runs = [
        run(moved=10_000_000, seconds=2.0, placing_seconds=0.1),
        run(partitioner="locality", moved=5_000_000, seconds=1.5, placing_seconds=1.3),
        run(partitioner="balanced", moved=9_000_000, seconds=1.9, placing_seconds=0.2),
        run(partitioner="range", moved=9_000_000),
    ]
    sentences = [each for each in findings(study(runs, [placement()])) if "Break-even" in each]
    assert sentences == [
        "Placement by locality takes 1.20 s longer than by hash. Break-even: after 3 iterations by "
        "measured time, after 30 iterations by bytes alone at 125 MB/s.",
        "Placement by balanced takes 0.10 s longer than by hash. Break-even: never by measured "
        "time, after 13 iterations by bytes alone at 125 MB/s.",
    ]


def test_finding_averages_both_sides():
    many = {**placement(), "users": {**placement()["users"], "ids": [1000] * 2, "sent": [1000] * 2}}
    runs = [run(), run(blocks=4, moved=110)]
    sentences = " ".join(findings(study(runs, [many, placement(blocks=4)])))
    assert "a row goes to 2.0 blocks on average instead of 1.0." in sentences


def test_finding_on_a_wrong_prediction():
    (sentences,) = [
        sentence
        for sentence in findings(study([run(planned={"most_bytes": 125})], [placement()]))
        if "planned" in sentence
    ]
    assert sentences == "The shuffle moved the planned bytes to within 20.0% in its only run."
    compressed_study = study([run(planned={"most_bytes": 200})], [placement()], compressed=True)
    assert "moved 50% to 50% of the planned bytes" in " ".join(findings(compressed_study))


def test_findings_of_small_studies():
    assert findings(study([])) == []
    assert findings(study([run(MLLIB)])) == []
    assert len(findings(study([run()], [placement()]))) == 3


@pytest.mark.parametrize(
    ("runs", "placements", "names"),
    [
        ([], [], []),
        ([run(MLLIB)], [], ["mllib"]),
        (
            [run(rank=rank, blocks=1) for rank in range(1, 12)],
            [placement(blocks=1)],
            ["bytes", "prediction", "heat", "skew", "time", "timeline"],
        ),
        (
            [run(moved=0, planned={"most_bytes": 0}, blocks=1)],
            [placement(blocks=1)],
            ["bytes", "prediction", "heat", "skew", "time", "timeline"],
        ),
        (
            [run(blocks=200), run(MLLIB, blocks=200)],
            [placement(blocks=200)],
            ["bytes", "prediction", "skew", "time", "timeline", "mllib"],
        ),
    ],
)
def test_figures(tmp_path, runs, placements, names):
    pytest.importorskip("plotly")
    from rddals.study.figures import figures
    from rddals.study.page import write_report

    document = study(runs, placements)
    assert [figure.name for figure in figures(document)] == names
    document |= {
        "schema": SCHEMA, "rddals": "1", "spark": "4", "master": "local", "cores": 2,
        "paths": ["a<b>.csv"], "format": "CSV",
        "ratings": {"ratings": 9, "users": 3, "products": 3, "digest": "1"},
        "settings": {"iterations": 2, "lambda": 0.1, "seed": 1, "precision": "double"},
    }  # fmt: skip
    page = write_report(document, tmp_path).read_text()
    assert "a&lt;b&gt;.csv" in page and "a<b>" not in page

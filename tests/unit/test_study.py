"""Grids, records, findings and figures: all of a study but its running."""

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
    """A run as study.json has it."""
    theirs = exchange == MLLIB
    sides = {"users_bytes": moved // 2, "products_bytes": moved - moved // 2, "messages": 8}
    return {
        "exchange": exchange,
        "partitioner": partitioner,
        "blocks": blocks,
        "rank": rank,
        "auto": None if theirs else {"exchange": "shuffle", "reason": "it does"},
        "planned": None if theirs else {"least_bytes": moved, "most_bytes": moved, **sides},
        "measured": {"bytes": moved, **sides},
        "task_seconds": dict.fromkeys(
            ("compute", "serialisation", "shuffle", "rest"), None if theirs else seconds / 2
        ),
        "iteration_seconds": seconds,
        "placing_seconds": None if theirs else 0.0,
        "training_seconds": 5 * seconds,
        "loss": None if theirs else 3.0,
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


def test_a_grid_combines_each_with_each():
    grid = Grid(("shuffle", "join"), ("hash", "range"), (2, 4), (10,), mllib=True)
    combinations = grid.combinations()
    assert len(combinations) == len(set(combinations)) == 2 * 2 * 2 + 2
    assert combinations[-1] == Combination(MLLIB, "hash", 4, 10)
    assert grid.missing(combinations[:-1]) == combinations[-1:]
    assert str(combinations[0]) == "shuffle, hash, 2 blocks, rank 10"


def test_what_is_recorded_is_there_the_next_time(tmp_path):
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


def test_the_file_is_whole_when_writing_fails(tmp_path, monkeypatch):
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
        ("", "is no study"),
        ("[]", "is no study"),
        ('{"name": 1}', "is no study"),
        (json.dumps({"schema": SCHEMA + 1}), f"has schema {SCHEMA + 1}, and this rddals writes"),
        (
            json.dumps({"schema": SCHEMA, **SUBJECT, "settings": {"seed": 2}}),
            "made with settings.seed 2, and this is 1",
        ),
        (
            json.dumps({"schema": SCHEMA, **SUBJECT, "compressed": {"shuffle": True}}),
            "made with compressed.shuffle True, and this is False",
        ),
        (json.dumps({"schema": SCHEMA, **SUBJECT}), "is no study"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, content, message):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(StudyError, match=message):
        Record(tmp_path, SUBJECT, ABOUT)
    assert (tmp_path / "study.json").read_text() == content


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"measured": {"bytes": "abc"}}, "of run 1, 'users_bytes' is missing"),
        ({"measured": {**run()["measured"], "bytes": "abc"}}, "measured_bytes is 'abc'"),
        ({"half_steps": None}, "half_steps is None"),
        ({"planned": 7}, "of another kind"),
        ({"rank": "2"}, "rank is '2'"),
        ({"loss": [3]}, r"loss is \[3\]"),
    ],
)
def test_a_study_that_is_damaged(tmp_path, fault, message):
    document = {"schema": SCHEMA, **SUBJECT, "runs": [run(), run(**fault)], "placements": []}
    (tmp_path / "study.json").write_text(json.dumps(document))
    with pytest.raises(StudyError, match=f"study.json is damaged: .*{message}.*; pass another"):
        Record(tmp_path, SUBJECT, ABOUT)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"):
        Record(tmp_path / "file" / "study", SUBJECT, ABOUT)


def test_a_line_of_csv_for_every_run(tmp_path):
    record = Record(tmp_path, SUBJECT, ABOUT)
    record.add(run(moved=101))
    record.add(run(exchange=MLLIB, moved=300))
    header, ours, theirs = record.write_csv().read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert ours.startswith("shuffle,hash,2,2,101,101,50,51,8,101,50,51,8,0.5,")
    assert theirs.startswith("MLlib,hash,2,2,,,,,,300,150,150,8,,,,,")


def test_findings_by_hand():
    runs = [
        run(moved=1000),
        run("join", moved=9000, seconds=0.5),
        run(blocks=4, moved=2000),
        run("join", blocks=4, moved=9000, seconds=0.5),
        run(partitioner="locality", blocks=4, moved=1500),
        run(MLLIB, blocks=4, moved=3000, seconds=2.0),
    ]
    placements = [placement(), placement(blocks=4), placement("locality", 4, heaviest=2)]
    told = " ".join(findings(study(runs, placements)))
    for sentence in (
        "At rank 2 in 4 blocks, shuffle with locality moves the fewest bytes, 1.5 KiB an "
        "iteration, and join with hash the most, 8.8 KiB: 6.00 times as many.",
        "The shuffle moved what was planned, to the byte, in all 3 runs.",
        "at 4 blocks, the shuffle's bytes change by placement: locality -25%.",
        "From 2 to 4 blocks, the shuffle of hashed ids grows to 2.00 times as many bytes: a row "
        "goes to 2.0 blocks on average instead of 1.0.",
        "The heaviest of 4 blocks has 2.00 (hash), 1.00 (locality) times the ratings",
        "At rank 2 in 4 blocks, the fastest iteration, 0.50 s, is that of join with hash, which "
        "moves 6.00 times the fewest bytes.",
        "compute 25%, serialisation 25%, shuffle 25%, rest 25%.",
        "the exchange with the fewest bytes of those run in 2 of 2 cases.",
        "MLlib moves 1.50 times the bytes of our shuffle with the same placement, and takes 2.00",
    ):
        assert sentence in told


def test_what_a_placement_costs_and_saves():
    runs = [
        run(moved=10_000_000, seconds=2.0, placing_seconds=0.1),
        run(partitioner="locality", moved=5_000_000, seconds=1.5, placing_seconds=1.3),
        run(partitioner="balanced", moved=9_000_000, seconds=1.9, placing_seconds=0.2),
        run(partitioner="range", moved=9_000_000),
    ]
    told = [each for each in findings(study(runs, [placement()])) if "Placing" in each]
    assert told == [
        "Placing by locality takes 1.20 s more than by hash: paid back by the clock after 3 "
        "iterations, and by the bytes alone, at 125 MB a second, after 30 iterations.",
        "Placing by balanced takes 0.10 s more than by hash: paid back by the clock never, and by "
        "the bytes alone, at 125 MB a second, after 13 iterations.",
    ]


def test_sides_of_different_size_have_one_average():
    many = {**placement(), "users": {**placement()["users"], "ids": [1000] * 2, "sent": [1000] * 2}}
    runs = [run(), run(blocks=4, moved=110)]
    told = " ".join(findings(study(runs, [many, placement(blocks=4)])))
    assert "a row goes to 2.0 blocks on average instead of 1.0." in told


def test_a_prediction_that_failed_is_told():
    (told,) = [
        sentence
        for sentence in findings(study([run(planned={"most_bytes": 125})], [placement()]))
        if "planned" in sentence
    ]
    assert told == "The shuffle moved what was planned within 20.0% in its one run."
    squeezed = study([run(planned={"most_bytes": 200})], [placement()], compressed=True)
    assert "moved 50% to 50% of the bytes" in " ".join(findings(squeezed))


def test_little_to_find():
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
def test_figures_of_what_there_is(tmp_path, runs, placements, names):
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

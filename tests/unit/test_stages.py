"""Summaries of event logs that are written by hand."""

import json

import pytest

from rddals.errors import EventLogError
from rddals.measure import Traffic, read_event_log
from rddals.measure.stages import summarise


def line(name, **fields):
    event = {"Event": f"SparkListener{name}", **{k.replace("_", " "): v for k, v in fields.items()}}
    return json.dumps(event, separators=(",", ":")) + "\n"


START = line("LogStart", Spark_Version="4.3.0")


def submitted(stage, name="count at x.py:1", step=None, attempt=0):
    info = {"Stage ID": stage, "Stage Attempt ID": attempt, "Stage Name": name}
    return line("StageSubmitted", Stage_Info=info, Properties={"rddals.step": step} if step else {})


def ended(stage, partition, start=1000, stop=2000, reason="Success", metrics=True, **counts):
    task = {"Index": partition, "Partition ID": partition, "Launch Time": start}
    task["Finish Time"] = stop
    read = {"Local Bytes Read": counts.get("near", 0), "Remote Bytes Read": counts.get("far", 0)}
    read |= {"Total Records Read": 2, "Fetch Wait Time": 250}
    write = {"Shuffle Bytes Written": counts.get("written", 0), "Shuffle Records Written": 3}
    write["Shuffle Write Time"] = 500_000_000
    metric = {"Shuffle Read Metrics": read, "Shuffle Write Metrics": write, "Result Size": 7}
    metric |= {"Memory Bytes Spilled": 40, "Disk Bytes Spilled": 20}
    metric["Peak Execution Memory"] = counts.get("peak", 0)
    fields = {"Stage ID": stage, "Task End Reason": {"Reason": reason}, "Task Info": task}
    if metrics:
        fields["Task Metrics"] = metric
    return line("TaskEnd", **fields)


def test_tasks_of_a_stage_add_up():
    summary = summarise(
        [
            submitted(4, step="1 products"),
            ended(4, 0, 1000, 2000, near=10, far=5, written=100, peak=3),
            ended(4, 1, 1500, 4500, near=20, far=0, written=200, peak=9),
            ended(4, 2, 2000, 4000, written=1),
        ]
    )
    (stage,) = summary.stages
    assert (stage.stage, stage.name, stage.step) == (4, "count at x.py:1", "1 products")
    assert stage.done == Traffic(
        tasks=3, read_local=30, read_remote=5, read_records=6, written=301, written_records=9,
        spilled_memory=120, spilled_disk=60, results=21, fetch_wait=0.75, write_seconds=1.5,
        seconds=6.0,
    )  # fmt: skip
    assert stage.done.read == 35
    assert stage.task_seconds == (1.0, 2.0, 3.0)
    assert (stage.peak_memory, stage.began, stage.ended) == (9, 1.0, 4.5)
    assert stage.retried == stage.failed == Traffic()


def test_failed_and_retried_tasks_are_separate():
    summary = summarise(
        [
            submitted(0),
            ended(0, 0, written=100),
            ended(0, 1, written=50, reason="ExceptionFailure"),
            ended(0, 1, written=70),
            ended(0, 0, reason="ExecutorLostFailure", metrics=False),
            submitted(0, attempt=1),  # the executor with the output of partition 0 was lost
            ended(0, 0, written=100),
        ]
    )
    assert (summary.total.tasks, summary.total.written) == (2, 170)
    assert (summary.retried.tasks, summary.retried.written) == (1, 100)
    assert (summary.failed.tasks, summary.failed.written) == (2, 50)
    assert len(summary.stages) == 1


def test_stages_are_grouped_by_step():
    summary = summarise(
        [
            submitted(1, step="links"),
            submitted(0, step="links"),
            ended(0, 0, 1000, 2000, written=1),
            ended(1, 0, 2000, 3000, near=1),
            submitted(2),
            ended(2, 0, 3000, 4000, near=99),
            submitted(3, step="start"),
            ended(3, 0, 4000, 5000, written=5),
            submitted(4, step="never ran"),
        ]
    )
    assert [s.stage for s in summary.stages] == [0, 1, 2, 3]
    assert [s.step for s in summary.steps] == ["links", "start"]
    assert (summary.steps[0].done.written, summary.steps[0].done.read) == (1, 1)
    assert (summary.steps[0].began, summary.steps[0].ended) == (1.0, 3.0)
    assert summary.document()["steps"][1]["done"]["written"] == 5
    assert json.loads(json.dumps(summary.document()))["total"]["read_local"] == 100


def block_updates(at, **blocks):
    """Return the events of blocks stored on an executor."""
    return [
        line(
            "BlockUpdated",
            Block_Updated_Info={
                "Block Manager ID": {"Executor ID": at},
                "Block ID": block,
                "Memory Size": size,
                "Disk Size": 1,
            },
        )
        for block, size in blocks.items()
    ]


def test_broadcasts_are_counted_per_executor():
    summary = summarise(
        block_updates("driver", broadcast_3_piece0=700, broadcast_3=5000, rdd_1_0=900)
    )
    assert (summary.broadcasts, summary.broadcast, summary.stages) == ({3: 701}, 701, ())
    lines = [
        *block_updates("driver", broadcast_3_piece0=700),
        *block_updates("0", broadcast_3_piece0=700),
    ]
    lines += [*block_updates("1", broadcast_3_piece0=700, broadcast_4_piece0=10)]
    assert summarise(lines).broadcasts == {3: 2 * 701, 4: 11}


def test_incomplete_last_line_is_ignored(tmp_path):
    log = tmp_path / "app-1.inprogress"
    start = line("LogStart", Spark_Version="4.3.0")
    log.write_text(start + line("Other", x=1) + ended(0, 0, written=3) + ended(0, 1)[:99])
    for path in (log, log.as_uri()):
        summary = read_event_log(path)
        assert (summary.total.written, summary.total.tasks, summary.spark) == (3, 1, "4.3.0")


def test_rolled_log_is_read_in_order(tmp_path):
    folder = tmp_path / "eventlog_v2_app-1"
    folder.mkdir()
    (folder / "appstatus_app-1").touch()
    (folder / "events_1_app-1").write_text(line("LogStart", Spark_Version="4.0.1") + submitted(7))
    (folder / "events_2_app-1").write_text(submitted(7, step="links") + ended(7, 0) + "{half")
    (folder / "events_10_app-1").write_text(submitted(7, step="start"))
    assert [stage.step for stage in read_event_log(folder).stages] == ["start"]


def test_event_log_of_another_file_system_raises():
    with pytest.raises(EventLogError, match=r"^hdfs://host/log is not on a local disk\. Copy it"):
        read_event_log("hdfs://host/log")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, "log does not exist. Pass an event log"),
        ({}, "not a rolled event log .* It contains nothing"),
        ({"app-1": "", "app-2": ""}, r"It contains app-1, app-2\. Pass"),
    ],
)
def test_missing_event_log_raises(tmp_path, files, words):
    place = tmp_path / "log"
    if files is not None:
        place.mkdir()
        for name, text in files.items():
            (place / name).write_text(text)
    with pytest.raises(EventLogError, match=words):
        read_event_log(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it does not begin with SparkListenerLogStart"),
        ("1,2,3\n", "line 1 is not an event"),
        (line("TaskEnd"), "line 1 is not a valid SparkListenerTaskEnd"),
        ('{"Event":"SparkListenerTaskEnd", oops}\n', "line 1 is not a valid SparkListenerTaskEnd"),
        (START + "garbage\n" + ended(0, 0), "line 2 is not an event"),
        (START + "[1, 2]\n", "line 2 is not an event"),
        (START + ended(0, 0).replace("{", '"', 3), "line 2 is not an event"),
        (
            START + line("TaskEnd", Stage_ID=1, Task_Metrics="x", Task_Info={}),
            "line 2 is not a valid S",
        ),
        (START + ended(0, 0, written="much") + ended(0, 1, written=1), "line 2 is not a valid S"),
    ],
)
def test_invalid_event_log_raises(tmp_path, text, message):
    (tmp_path / "log").write_text(text)
    with pytest.raises(EventLogError, match=f"log is not a Spark event log.*: {message}"):
        read_event_log(tmp_path / "log")


def test_other_json_spacing_and_application_end(tmp_path):
    text = START + "\n" + submitted(0) + ended(0, 0, written=3)
    (tmp_path / "log").write_text(text.replace('":', '": '))
    assert not read_event_log(tmp_path / "log").finished
    (tmp_path / "log").write_text(text + line("ApplicationEnd", Timestamp=7))
    summary = read_event_log(tmp_path / "log")
    assert (summary.finished, summary.total.written) == (True, 3)


@pytest.mark.parametrize("path", [None, 5, b"log", ""])
def test_invalid_path_raises(path):
    with pytest.raises(EventLogError, match="path must be the path of an event log but got"):
        read_event_log(path)


def test_binary_file_raises(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EventLogError, match="log is not a Spark event log: it is not UTF-8 text"):
        read_event_log(str(tmp_path / "log"))
    with pytest.raises(EventLogError, match="/dev/null is neither a file nor a directory"):
        read_event_log("/dev/null")

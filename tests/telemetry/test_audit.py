from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tensor_wasm.errors import ConfigurationError, NotFound, TensorWasmError
from tensor_wasm.telemetry import audit, render
from tensor_wasm.telemetry.audit import QUEUE_LINES, AuditLog, AuditRecord
from tensor_wasm.telemetry.audit_schema import EVENTS, LINE_MAX_BYTES, RETRY_AFTER, encode, moment, outcomes, schema

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "audit.md").read_text("utf-8")
VALIDATOR = Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)

#: What a client may try in a name: line ends of every kind, a terminal's orders, text turned around, half a character.
NASTY = 'a"\\\n\r\x00\x1b[2J\x7f\x85\x9b\u2028\u2029\u202e\u2066\ufeff\U000e0001{}'


def record(**fields: object) -> AuditRecord:
    values = {
        "request_id": "0192f0c2-1111",
        "event": "function.delete",
        "method": "DELETE",
        "route": "/functions/:id",
        "status": 204,
        "outcome": "ok",
        "tenant": 7,
        "token": "settings-1",
        "client": "127.0.0.1",
        "resource": "0192f0c2-2222",
    }
    return AuditRecord(**(values | fields))


def numbered(thread: int, number: int) -> AuditRecord:
    return record(request_id=f"{thread}-{number}")


def lines_of(*paths: Path) -> list[dict]:
    """The lines of files, each whole: fails on what is torn."""
    text = b"".join(path.read_bytes() for path in paths)
    assert not text or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def ids(lines: list[dict]) -> list[str]:
    return [line["request_id"] for line in lines]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.log"


@pytest.fixture
def opened():
    """Makes logs, and closes them."""
    logs = []

    def make(destination: object) -> AuditLog:
        logs.append(AuditLog(destination if isinstance(destination, str) else f"file:{destination}"))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


@pytest.fixture
def pipe(monkeypatch):
    """A pipe in the place of standard output; ``read`` and ``write`` are its ends."""
    read, write = os.pipe()
    monkeypatch.setattr(sys, "__stdout__", SimpleNamespace(fileno=lambda: write))
    ends = SimpleNamespace(read=os.fdopen(read, "rb"), write=os.fdopen(write, "wb", buffering=0))
    yield ends
    ends.read.close()
    ends.write.close()


# --- lines ------------------------------------------------------------------------------------------------


def examples() -> list[AuditRecord]:
    """A record of each event with every member of its detail, one of each outcome, and what may be missing."""
    values = {"string": NASTY, "integer": 2**64 - 1, "number": 0.5, "boolean": True, "null": None}
    made = []
    for event in EVENTS:
        members = (*event.detail, RETRY_AFTER)
        resource = "r-1" if event.resource else None
        for choose in (lambda types: types[0], lambda types: types[-1]):
            detail = {row.name: values[choose(row.type.split("|"))] for row in members}
            made.append(record(event=event.name, resource=resource, detail=detail))
    made += [record(outcome=outcome, status=500) for outcome in outcomes()]
    made.append(record(event="request", method="other", route="other", status=401, outcome="unauthorized", tenant=None,
                       token=None, client=None, resource=None))  # fmt: skip
    made.append(record(event="job.end", method=None, route=None, status=None, token="", tenant=2**64 - 1))
    return made


@pytest.mark.parametrize("given", examples(), ids=lambda given: f"{given.event}-{given.outcome}")
def test_a_line_is_what_the_schema_says_and_holds_what_was_given(given):
    read = json.loads(encode(given))
    VALIDATOR.validate(read)
    assert read == msgspec.to_builtins(given)


@pytest.mark.parametrize(
    "change",
    [
        {"event": "function.explode"},
        {"outcome": "fine"},
        {"status": 99},
        {"status": "200"},
        {"tenant": -1},
        {"tenant": 2**64},
        {"tenant": 1.5},
        {"time": "2026-01-31T12:00:00Z"},
        {"time": "2026-01-31 12:00:00.000000Z"},
        {"detail": {"password": "x"}},
        {"detail": {"retry_after_s": "3"}},
        {"detail": None},
        {"event": "node.drain"},  # which has no resource
        {"more": 1},
    ],
    ids=str,
)
def test_the_schema_refuses_what_no_line_has(change):
    line = json.loads(encode(record())) | change
    assert not VALIDATOR.is_valid(line)


@pytest.mark.parametrize("name", AuditRecord.__struct_fields__)
def test_the_schema_wants_every_field(name):
    line = json.loads(encode(record()))
    del line[name]
    assert not VALIDATOR.is_valid(line)


@pytest.mark.parametrize("place", ["request_id", "route", "client", "resource", "detail"])
def test_no_text_forges_a_line_or_moves_a_terminal(place):
    given = record(**{place: {"name": NASTY} if place == "detail" else NASTY})
    line = encode(given).decode()
    assert len(line.splitlines()) == 1
    assert line[:-1].isprintable()
    assert json.loads(line) == msgspec.to_builtins(given)


def test_text_that_people_read_stays_readable():
    assert "größe 大 🙂" in encode(record(resource="größe 大 🙂")).decode()


@pytest.mark.parametrize("half", ["\ud800", "x\udfff\u2028\n"])
def test_half_of_a_surrogate_pair_is_written_as_text(half):
    line = encode(record(resource=half, detail={"name": half, half: 1}))
    read = json.loads(line)
    assert read["resource"] == read["detail"]["name"] == half.encode("utf-8", "backslashreplace").decode()
    assert len(line.decode().splitlines()) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"resource": "x" * 100_000},
        {"resource": "\u2028" * 100_000, "route": "\U000e0001" * 1000, "client": "\x00" * 5000},
        {"detail": {"name": "🙂" * 4000, "size_bytes": 1}},
        {"detail": {f"member {n}": "x" for n in range(10_000)}},
        dict.fromkeys(("request_id", "event", "method", "route", "outcome", "token", "client"), "\U000e0001" * 5000),
    ],
    ids=lambda given: " ".join(given)[:20],
)
def test_a_line_is_short_whatever_a_client_sends(given):
    line = encode(record(**given))
    assert len(line) <= LINE_MAX_BYTES
    read = json.loads(line)
    assert read.keys() == set(AuditRecord.__struct_fields__)
    assert (read["tenant"], read["status"]) == (7, 204)


def test_a_string_that_is_cut_shows_it_and_the_others_stay():
    read = json.loads(encode(record(resource="x" * 5000, detail={"name": "whole", "size_bytes": 12})))
    assert read["resource"].startswith("xxxx")
    assert read["resource"].endswith("…")
    assert read["detail"] == {"name": "whole", "size_bytes": 12}
    assert read["request_id"] == "0192f0c2-1111"


def test_the_time_is_now_in_utc_to_the_microsecond(monkeypatch):
    before = datetime.now(UTC)
    read = datetime.fromisoformat(record().time)
    # The clock's own reading, cut to microseconds, may lie just below the one before.
    assert before - timedelta(microseconds=1) <= read <= datetime.now(UTC)
    source = random.Random(4)
    for _ in range(200):
        moment_ns = source.randrange(4_000_000_000 * 10**9)
        monkeypatch.setattr(time, "time_ns", lambda now=moment_ns: now)
        expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_ns // 1000)
        assert moment() == expected.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


# --- documentation ----------------------------------------------------------------------------------------


def test_the_schema_is_valid_and_committed():
    Draft202012Validator.check_schema(schema())
    committed = (DOCS / "audit.schema.json").read_text("utf-8")
    made = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tensor_wasm.telemetry.audit"], capture_output=True, check=True, text=True
    ).stdout
    assert made == committed, "python -m tensor_wasm.telemetry.audit > docs/audit.schema.json"


def test_the_schema_describes_every_field_event_outcome_and_detail():
    made = schema()
    assert tuple(made["properties"]) == AuditRecord.__struct_fields__
    described = [*made["properties"].values(), *made["properties"]["event"]["oneOf"]]
    described += made["properties"]["outcome"]["oneOf"]
    described += [row for branch in made["oneOf"] for row in branch["properties"]["detail"]["properties"].values()]
    assert all(len(part["description"]) > 8 for part in described)
    assert outcomes().keys() >= {TensorWasmError.kind, NotFound.kind, "rate_limited", "trap", "ok"}


def rows(heading: str) -> dict[str, list[str]]:
    """The table below a heading of the page: the first cell's name to the other cells."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [row.strip("| ").split(" | ") for row in section.splitlines() if row.startswith("| `")]
    return {first.strip("`"): rest for first, *rest in cells}


def test_the_page_has_every_field_with_its_type():
    def types(described: dict) -> str:
        return " or ".join(part["type"] for part in described["anyOf"]) if "anyOf" in described else described["type"]

    properties = msgspec.json.schema(AuditRecord)["$defs"]["AuditRecord"]["properties"]
    assert {name: cells[0] for name, cells in rows("Fields").items()} == {
        name: types(described) for name, described in properties.items()
    }


def test_the_page_has_every_event_with_its_resource_and_detail():
    table = rows("Events")
    assert list(table) == [event.name for event in EVENTS]
    for event in EVENTS:
        _, *rest = table[event.name]
        text = " | ".join(rest)
        resource, _, detail = text.partition("|")
        assert resource.strip() == event.resource
        assert re.findall(r"`(\w+)`", detail) == [row.name for row in event.detail]
    assert f"`{RETRY_AFTER.name}`" in PAGE


def test_the_page_s_numbers_are_the_program_s():
    assert f"{QUEUE_LINES:,} lines" in PAGE
    assert f"at most {LINE_MAX_BYTES:,}" in " ".join(PAGE.split())


def test_the_page_s_example_is_a_line():
    block = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1]
    VALIDATOR.validate(json.loads(block))


# --- destinations -----------------------------------------------------------------------------------------


def test_lines_are_appended_to_a_file_that_only_the_node_may_read(opened, path):
    before = os.umask(0)
    try:
        log = opened(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    log.write(record(request_id="one"))
    assert log.close()
    opened(path).write(record(request_id="two"))
    wait_for(lambda: ids(lines_of(path)) == ["one", "two"])


def test_a_file_that_is_there_keeps_its_mode(opened, path):
    path.write_text("")
    path.chmod(0o640)
    opened(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_program_that_the_node_starts_does_not_get_the_file(opened, path):
    opened(path)
    descriptors = [fd.name for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd) == str(path)]
    assert len(descriptors) == 1
    assert fcntl.fcntl(int(descriptors[0]), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_line_that_a_crash_left_unfinished_is_not_gone_on_in(opened, path):
    path.write_bytes(encode(record(request_id="old")) + b'{"time":"2026-')
    log = opened(path)
    log.write(record(request_id="new"))
    assert log.close()
    old, torn, new = path.read_bytes().splitlines()
    assert (json.loads(old)["request_id"], torn, json.loads(new)["request_id"]) == ("old", b'{"time":"2026-', "new")


def test_what_cannot_be_opened_stops_the_start(tmp_path, monkeypatch):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = tmp_path / "fifo that is read"
    os.mkfifo(reader)
    descriptor = os.open(reader, os.O_RDONLY | os.O_NONBLOCK)
    unusable = [
        f"file:{tmp_path}",
        f"file:{tmp_path}/none/audit.log",
        f"file:{fifo}",
        f"file:{reader}",
        "file:audit.log",
    ]
    try:
        for destination in [*unusable, "file:", "stderr", "", "file:/a\0b"]:
            with pytest.raises(ConfigurationError, match=r"^TENSOR_WASM_AUDIT="):
                AuditLog(destination)
    finally:
        os.close(descriptor)
    monkeypatch.setattr(sys, "__stdout__", None)
    with pytest.raises(ConfigurationError, match=r"^TENSOR_WASM_AUDIT='stdout'.*closed"):
        AuditLog("stdout")


def test_without_a_destination_nothing_is_written_or_counted():
    threads = threading.active_count()
    log = AuditLog("none")
    log.write(record())
    log.reopen()
    assert (log.is_on, log.failures, threading.active_count()) == (False, 0, threads)
    assert log.flush()
    assert log.close()


def test_standard_output_of_a_real_process(tmp_path):
    done = run_script("log = AuditLog('stdout'); log.write(record(1)); log.close(); print('end', flush=True)", tmp_path)
    first, second = done.stdout.splitlines()
    VALIDATOR.validate(json.loads(first))
    assert second == "end"


def test_a_reader_that_goes_away_is_a_failure_and_no_crash(opened, pipe, caplog):
    log = opened("stdout")
    log.write(record(request_id="read"))
    assert json.loads(pipe.read.readline())["request_id"] == "read"
    pipe.read.close()
    with caplog.at_level(logging.WARNING):
        for n in range(50):
            log.write(numbered(0, n))
            log.flush()
        assert log.close()
    assert log.failures == 50
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert "Broken pipe" in warning


def test_a_pipe_that_does_not_block_loses_nothing(opened, pipe):
    os.set_blocking(pipe.write.fileno(), False)
    log = opened("stdout")
    reader = Reader(pipe.read, slow=True)
    for n in range(8000):
        log.write(numbered(0, n))
    assert log.close(30)
    pipe.write.close()
    assert ids(reader.lines()) == [f"0-{n}" for n in range(8000)]
    assert log.failures == 0


def test_other_writers_of_the_same_pipe_stand_between_lines(opened, pipe):
    log = opened("stdout")
    reader = Reader(pipe.read, slow=True)
    stop = threading.Event()

    def others() -> None:
        while not stop.wait(0.0005):
            pipe.write.write(b'{"request_id":"other"}\n')

    other = threading.Thread(target=others)
    other.start()
    for n in range(20_000):
        log.write(numbered(0, n))
        if n % 2000 == 1999:
            log.flush()
    assert log.close(30)
    stop.set()
    other.join()
    pipe.write.close()
    found = ids(reader.lines())
    assert found.count("other") > 10
    assert [one for one in found if one != "other"] == [f"0-{n}" for n in range(20_000)]


# --- rotation ---------------------------------------------------------------------------------------------


def test_rotation_under_load_loses_and_tears_nothing(opened, path):
    log = opened(path)
    threads, count, rotations = 4, 5000, 25

    def writer(thread: int) -> None:
        for number in range(count):
            log.write(numbered(thread, number))
            if number % 250 == 249:
                time.sleep(0.002)

    writers = [threading.Thread(target=writer, args=(n,)) for n in range(threads)]
    for one in writers:
        one.start()
    for number in range(rotations):
        time.sleep(0.002)
        path.rename(path.with_suffix(f".{number}"))
        log.reopen()
        wait_for(path.exists)
    for one in writers:
        one.join()
    assert log.close(30)
    files = [*(path.with_suffix(f".{number}") for number in range(rotations)), path]
    written = [lines_of(file) for file in files]
    assert sum(1 for lines in written if lines) > 5
    found = [one for lines in written for one in ids(lines)]
    for thread in range(threads):
        assert [one for one in found if one.startswith(f"{thread}-")] == [f"{thread}-{n}" for n in range(count)]
    assert log.failures == 0


def test_what_was_handed_over_before_the_rotation_stays_in_the_old_file(opened, path):
    log = opened(path)
    old = path.with_suffix(".old")
    for n in range(3000):
        log.write(numbered(0, n))
    path.rename(old)
    log.reopen()
    log.write(numbered(1, 0))
    assert log.close()
    assert ids(lines_of(old)) == [f"0-{n}" for n in range(3000)]
    assert ids(lines_of(path)) == ["1-0"]


def test_a_file_that_was_deleted_is_made_anew(opened, path):
    log = opened(path)
    log.write(numbered(0, 0))
    assert log.flush()
    path.unlink()
    log.write(numbered(0, 1))
    assert log.flush()
    assert ids(lines_of(path)) == ["0-1"]
    assert log.failures == 0


def test_a_removed_directory_costs_lines_until_it_is_back(opened, tmp_path, caplog):
    folder = tmp_path / "logs"
    folder.mkdir()
    log = opened(folder / "audit.log")
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        log.reopen()
        for n in range(7):
            log.write(numbered(0, n))
        assert log.flush()
        assert log.failures == 7
        folder.mkdir()
        log.write(numbered(1, 0))
        assert log.close()
    assert ids(lines_of(folder / "audit.log")) == ["1-0"]
    assert log.failures == 7
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert "No such file or directory" in warning


def test_a_directory_that_goes_without_a_signal_is_noticed(opened, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    log = opened(folder / "audit.log")
    shutil.rmtree(folder)
    log.write(record())
    assert log.flush()
    assert log.failures == 1


def test_a_rotation_without_a_new_file_goes_on_in_the_old_one(opened, path):
    log = opened(path)
    old = path.with_suffix(".old")
    path.rename(old)
    path.mkdir()  # nothing can be opened under the name
    log.reopen()
    log.write(numbered(0, 0))
    assert log.flush()
    path.rmdir()
    log.write(numbered(0, 1))
    assert log.flush()
    assert (ids(lines_of(old)), ids(lines_of(path)), log.failures) == (["0-0"], ["0-1"], 0)


# --- what is lost -----------------------------------------------------------------------------------------


def test_a_full_disk_is_counted_and_warned_of_once(opened, caplog):
    log = opened("file:/dev/full")
    with caplog.at_level(logging.WARNING):
        for n in range(300):
            log.write(numbered(0, n))
            if n % 100 == 0:
                log.flush()
        assert log.close()
    assert log.failures == 300
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert "No space left on device" in warning
    assert "/dev/full" in warning


def test_a_warning_is_repeated_after_its_interval(opened, caplog, monkeypatch):
    monkeypatch.setattr(audit, "WARNING_INTERVAL_S", 0.0)
    log = opened("file:/dev/full")
    with caplog.at_level(logging.WARNING):
        for expected in (1, 2):
            log.write(record())
            log.flush()
            wait_for(lambda expected=expected: len(caplog.records) == expected)


def test_a_disk_that_is_full_within_a_line_keeps_whole_lines_only(tmp_path):
    """A limit of the file's size stands for the disk: the system writes up to it and then refuses, as a disk does."""
    path = tmp_path / "audit.log"
    length = len(encode(record(request_id="0-0000"))) - len("0192f0c2-1111") + len("0-0000")
    limit = length * 5 + length // 2
    done = run_script(
        f"""
        import resource
        log = AuditLog("file:{path}")
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
        for n in range(10):
            log.write(record(n))
        assert log.flush()
        lost = log.failures
        for n in range(10, 12):
            log.write(record(n)); log.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log.write(record(12))
        assert log.close()
        print(lost, log.failures)
        """,
        tmp_path,
    )
    lost, failures = map(int, done.stdout.split())
    written = ids(lines_of(path))
    assert written[-1] == "0-0012"
    assert written[:-1] == [f"0-{n:04d}" for n in range(len(written) - 1)]
    assert 0 < lost <= failures
    assert len(written) + failures == 13


def test_a_half_line_that_cannot_be_taken_back_is_ended(opened, path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    log = opened(path)
    write = audit._write_some
    answers = iter([lambda descriptor, data: write(descriptor, data[:30]), refuse, refuse, write])

    def answer(descriptor: int, data: memoryview) -> int:
        return next(answers)(descriptor, data)

    monkeypatch.setattr(audit, "_write_some", answer)
    monkeypatch.setattr(os, "ftruncate", refuse)
    for n in range(3):
        log.write(numbered(0, n))
        assert log.flush()
    torn, whole = path.read_bytes().splitlines()
    assert len(torn) == 30
    assert json.loads(whole)["request_id"] == "0-2"
    assert log.failures == 2


def test_a_queue_that_is_full_costs_lines_and_no_time(opened, pipe, caplog):
    log = opened("stdout")
    fill(pipe.write)
    log.write(numbered(0, 0))
    wait_for(lambda: log._queue.qsize() == 0)  # the thread has it in hand, and stands at the pipe
    with caplog.at_level(logging.WARNING):
        for n in range(QUEUE_LINES + 500):  # nobody reads: had a call waited for the pipe, it would never come back
            log.write(numbered(1, n))
        assert not log.flush(0.05)
        assert log.failures == 500
        reader = Reader(pipe.read)
        assert log.flush(30)
        log.write(numbered(2, 0))
        assert log.close(30)
    pipe.write.close()
    assert log.failures == 500
    found = [one for one in ids(reader.lines()) if one != "filler"]
    assert found == ["0-0", *(f"1-{n}" for n in range(QUEUE_LINES)), "2-0"]
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert "10,000 lines wait" in warning


def test_an_end_that_cannot_wait_counts_what_it_leaves(opened, pipe):
    log = opened("stdout")
    fill(pipe.write)
    log.write(numbered(0, 0))
    wait_for(lambda: log._queue.qsize() == 0)
    for n in range(20):
        log.write(numbered(1, n))
    assert not log.close(0.05)
    assert log.failures == 20
    reader = Reader(pipe.read)
    wait_for(lambda: log.close(1))
    assert log.failures == 20
    pipe.write.close()
    assert ids(reader.lines())[-1] == "0-0"


def test_after_the_end_lines_are_counted(opened, path):
    log = opened(path)
    log.write(record())
    assert log.close()
    assert log.close()
    log.write(record())
    log.reopen()
    assert log.flush()
    assert log.failures == 1
    assert len(lines_of(path)) == 1


def test_a_record_that_is_no_json_is_counted_and_does_not_fail_the_call(opened, path, caplog):
    log = opened(path)
    with caplog.at_level(logging.WARNING):
        log.write(record(detail={"name": object()}))
        assert log.close()
    assert log.failures == 1
    assert "function.delete" in caplog.records[0].getMessage()


def test_the_counter_is_there_from_the_first_scrape(opened):
    def value(log: AuditLog) -> float:
        text = render([log], "")[0].decode()
        (family,) = parse_text(text)
        (sample,) = family.samples
        assert (family.type, sample.name) == ("counter", "tensor_wasm_audit_write_failures_total")
        return sample.value

    log = opened("file:/dev/full")
    assert (value(log), value(AuditLog("none"))) == (0, 0)
    log.write(record())
    log.flush()
    assert value(log) == 1


@pytest.mark.slow
def test_a_hundred_thousand_lines(opened, path):
    log = opened(path)
    threads, count = 4, 25_000

    def writer(thread: int) -> None:
        for number in range(count):
            log.write(numbered(thread, number))
            if number % 1000 == 999:
                assert log.flush(30)

    writers = [threading.Thread(target=writer, args=(n,)) for n in range(threads)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert log.close(30)
    found = ids(lines_of(path))
    assert sorted(found) == sorted(f"{thread}-{number}" for thread in range(threads) for number in range(count))
    assert log.failures == 0


# --- help -------------------------------------------------------------------------------------------------


class Reader:
    """Reads a pipe to its end in a thread."""

    def __init__(self, file, *, slow: bool = False) -> None:
        self._file, self._slow = file, slow
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.daemon = True
        self._thread.start()

    def _run(self) -> None:
        while part := os.read(self._file.fileno(), 20_000 if self._slow else 1 << 20):
            self._parts.append(part)
            if self._slow:
                time.sleep(0.0003)

    def lines(self) -> list[dict]:
        self._thread.join(30)
        text = b"".join(self._parts)
        assert text.endswith(b"\n")
        return [json.loads(line) for line in text.splitlines()]


def fill(file) -> None:
    """Fill a pipe with lines."""
    line = b'{"request_id":"filler"' + b" " * (4096 - 24) + b"}\n"
    assert len(line) == 4096  # goes in whole or not at all
    os.set_blocking(file.fileno(), False)
    try:
        while True:
            os.write(file.fileno(), line)
    except BlockingIOError:
        os.set_blocking(file.fileno(), True)


def wait_for(condition, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.001)


def run_script(body: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run lines of Python in a process of their own; ``record(n)`` is a record with a number of four digits."""
    lines = body.splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    script = "\n".join(
        [
            "from tensor_wasm.telemetry.audit import AuditLog, AuditRecord",
            "def record(n):",
            f"    return AuditRecord(**({msgspec.structs.asdict(record())!r} | {{'request_id': f'0-{{n:04d}}'}}))",
            *(line[indent:] for line in lines),
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import NotFoundError, SpecError, UnavailableError
from overnight.jobs import JobCounts, JobRef, JobState, ResultFile, ResultManifest
from overnight.services.openai.results import (
    LineOutcome,
    Outcome,
    OutcomeCounts,
    chunks_from,
    join_results,
    read_outcomes,
)

REF = JobRef(service="openai", id="batch_1", conn_id="c")


def dump(*lines: Any) -> bytes:
    return b"".join(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in lines)


def asked(custom_id: str) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}


def done(custom_id: Any, body: Any = ..., status: Any = 200, error: Any = None) -> dict[str, Any]:
    body = {"data": [{"embedding": [0.1, 2e-7]}]} if body is ... else body
    return {
        "id": "r",
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": "q", "body": body},
        "error": error,
    }


def failed(custom_id: Any, code: str = "server_error", status: int = 500) -> dict[str, Any]:
    return done(custom_id, {"error": {"code": code, "message": f"no {custom_id}"}}, status)


def expired(custom_id: str) -> dict[str, Any]:
    error = {"code": "batch_expired", "message": "This request could not be executed before the window expired."}
    return {"id": "r", "custom_id": custom_id, "response": None, "error": error}


class Joined:
    def __init__(
        self,
        folder: Path,
        input_: bytes,
        output: bytes | None = None,
        error: bytes | None = None,
        ended: JobState = JobState.SUCCEEDED,
        chunk: int = 7,
        counts: JobCounts | None = None,
    ) -> None:
        contents = {"input": input_, "output": output, "error": error}
        files = tuple(
            ResultFile(kind=kind, uri=f"openai://{kind}") for kind, content in contents.items() if content is not None
        )

        def chunks(uri: str) -> Iterator[bytes]:
            content = contents[uri.removeprefix("openai://")] or b""
            for start in range(0, len(content), chunk):
                yield content[start : start + chunk]

        uris = {name: str(folder / f"{name}.jsonl") for name in ("outcomes", "retry", "succeeded")}
        self.counts: OutcomeCounts = join_results(
            ResultManifest(ref=REF, files=files, counts=counts or JobCounts()),
            chunks,
            outcomes_uri=uris["outcomes"],
            retry_uri=uris["retry"],
            succeeded_uri=uris["succeeded"],
            ended=ended,
        )
        self.outcomes: list[LineOutcome] = list(read_outcomes(uris["outcomes"]))
        self.retry = Path(uris["retry"]).read_bytes()
        self.succeeded = [orjson.loads(line) for line in Path(uris["succeeded"]).read_bytes().splitlines()]


def test_every_line_gets_its_outcome_in_any_order(tmp_path: Path) -> None:
    joined = Joined(
        tmp_path,
        dump(*(asked(name) for name in "abcde")),
        dump(done("d"), failed("b"), done("a")),
        dump(expired("e")),
    )
    assert joined.counts == OutcomeCounts(submitted=5, succeeded=2, failed=1, expired=1, missing=1)
    assert joined.counts.unsuccessful == 3
    assert joined.outcomes == [
        LineOutcome(Outcome.FAILED, "b", 2, "output", 2, 500, "server_error", "no b"),
        LineOutcome(
            Outcome.EXPIRED,
            "e",
            5,
            "error",
            1,
            None,
            "batch_expired",
            "This request could not be executed before the window expired.",
        ),
        LineOutcome(Outcome.MISSING, "c", 3),
    ]
    assert [line["custom_id"] for line in joined.succeeded] == ["d", "a"]


def test_only_lines_without_a_result_are_tried_again_byte_for_byte(tmp_path: Path) -> None:
    odd = b'{ "custom_id":"b",  "body":{"n":1e-7} }\n'
    joined = Joined(tmp_path, dump(asked("a"), odd, asked("c")), dump(done("a")), dump(failed("c")))
    assert joined.retry == dump(odd, asked("c"))


def test_a_line_without_a_result_of_an_expired_batch_has_expired(tmp_path: Path) -> None:
    joined = Joined(tmp_path, dump(asked("a"), asked("b")), dump(done("a")), ended=JobState.EXPIRED)
    assert (joined.counts.succeeded, joined.counts.expired, joined.counts.missing) == (1, 1, 0)


def test_a_line_without_a_result_of_a_cancelled_batch_is_missing(tmp_path: Path) -> None:
    joined = Joined(tmp_path, dump(asked("a"), asked("b")), dump(done("a")), ended=JobState.CANCELLED)
    assert (joined.counts.succeeded, joined.counts.missing) == (1, 1)


def test_a_batch_without_any_result_file_misses_every_line(tmp_path: Path) -> None:
    joined = Joined(tmp_path, dump(asked("a"), asked("b")))
    assert joined.counts == OutcomeCounts(submitted=2, succeeded=0, failed=0, expired=0, missing=2)
    assert joined.retry == dump(asked("a"), asked("b"))


def test_an_empty_error_file_and_a_last_line_without_end_are_fine(tmp_path: Path) -> None:
    joined = Joined(tmp_path, dump(asked("a"), asked("b"))[:-1], dump(done("a"), done("b"))[:-1], b"")
    assert joined.counts == OutcomeCounts(submitted=2, succeeded=2, failed=0, expired=0, missing=0)
    assert (joined.outcomes, joined.retry) == ([], b"")


def test_a_body_sent_as_text_becomes_an_object_with_the_same_numbers(tmp_path: Path) -> None:
    body = '{"data":[{"embedding":[0.1, 1e-7, 9007199254740993, 0.10000000149011612]}]}'
    joined = Joined(tmp_path, dump(asked("a"), asked("b")), dump(done("a", body), done("b", "oh no")))
    assert joined.succeeded[0]["response"]["body"] == orjson.loads(body)
    assert joined.counts.succeeded == 1
    assert joined.outcomes[0].message == "oh no"


def test_a_body_sent_as_pretty_text_stays_on_its_line(tmp_path: Path) -> None:
    Joined(tmp_path, dump(asked("a")), dump(done("a", '{\n  "n": 12345678901234567890123,\r\n  "t": "x\\ny"\n}')))
    (line,) = (tmp_path / "succeeded.jsonl").read_bytes().splitlines()
    assert b'"body":{"n":12345678901234567890123,"t":"x\\ny"}' in line.replace(b": ", b":").replace(b", ", b",")


@pytest.mark.parametrize(
    "line",
    [
        rb'{"custom_id":"a","response":{"status_code":200,"body":"\ud800"}}',
        b'{"custom_id":"a","response":{"status_code":200,"body":"\xff"}}',
        rb'{"custom_id":"a","response":{"status_code":500,"body":{"error":{"message":"\ud800"}}}}',
        b'{"custom_id":"a","response":{"status_code":500,"body":{"error":{"message":"\xff"}}}}',
        b'{"custom_id":"a","error":"\xff"}',
        b'{"custom_id":"a","id":"\xff","response":{"status_code":200,"body":"{}"}}',
        b'{"custom_id":"a","response":{"status_code":200,"body":"{\\"x\\": 01}"}}',
    ],
)
def test_text_that_is_not_unicode_fails_its_line_and_no_other(tmp_path: Path, line: bytes) -> None:
    joined = Joined(tmp_path, dump(asked("a"), asked("b")), line + b"\n" + dump(done("b")))
    assert (joined.counts.submitted, joined.counts.succeeded) == (2, 1)
    assert joined.counts.failed + joined.counts.missing == 1


def test_good_lines_are_handed_on_byte_for_byte(tmp_path: Path) -> None:
    line = b'{"custom_id":"a", "response":{"status_code":200,"body":{"x":1.0000000000000000001}},"error":null}\n'
    Joined(tmp_path, dump(asked("a")), line)
    assert (tmp_path / "succeeded.jsonl").read_bytes() == line


@pytest.mark.parametrize(
    ("line", "status", "code", "message"),
    [
        (failed("a", "rate_limit", 429), 429, "rate_limit", "no a"),
        ({"custom_id": "a", "error": {"message": "bad"}}, None, None, "bad"),
        ({"custom_id": "a", "error": "just text"}, None, None, "just text"),
        ({"custom_id": "a", "response": None, "error": {"code": "x"}}, None, "x", "x"),
        ({"custom_id": "a"}, None, "unreadable_response", None),
        ({"custom_id": "a", "response": "text"}, None, "unreadable_response", None),
        (done("a", None), 200, "unreadable_response", None),
        (done("a", [1]), 200, "unreadable_response", None),
        (done("a", {"error": {"type": "t", "message": "in a 200"}}), 200, "t", "in a 200"),
        (done("a", {"message": "gone"}, 404), 404, None, "gone"),
        (done("a", '{"error": {"code": "c", "message": "as text"}}', "500"), 500, "c", "as text"),
        (done("a", error={"code": "c", "message": "beside a body"}), 200, "c", "beside a body"),
        (done("a", {}, 500), 500, "unreadable_response", None),
        (done("a", {"error": {"message": "x" * 5_000}}, 500), 500, None, "x" * 2_000),
    ],
)
def test_a_failed_line_is_told_however_the_server_words_it(
    tmp_path: Path, line: Any, status: int | None, code: str | None, message: str | None
) -> None:
    for source in ("output", "error"):
        joined = Joined(tmp_path, dump(asked("a")), **{source: dump(line)})
        assert joined.outcomes == [LineOutcome(Outcome.FAILED, "a", 1, source, 1, status, code, message)]
        assert joined.counts.failed == 1


def test_a_status_that_is_left_out_or_text_does_not_spoil_a_good_line(tmp_path: Path) -> None:
    joined = Joined(tmp_path, dump(asked("a"), asked("b")), dump(done("a", status=None), done("b", status="200")))
    assert joined.counts.succeeded == 2


def test_a_line_of_the_error_file_is_no_success(tmp_path: Path) -> None:
    joined = Joined(tmp_path, dump(asked("a")), b"", dump(done("a")))
    assert (joined.counts.succeeded, joined.counts.failed) == (0, 1)


def test_results_of_nobody_and_broken_lines_are_reported(tmp_path: Path) -> None:
    joined = Joined(
        tmp_path,
        dump(asked("a")),
        dump(done("stranger"), b'{"custom_id": "a", "resp\n', b"\xff\n", b"[]\n", done(None), done("a")),
    )
    assert joined.counts == OutcomeCounts(
        submitted=1, succeeded=1, failed=0, expired=0, missing=0, unknown_id=1, broken=4
    )
    assert [(outcome.outcome, outcome.source_line) for outcome in joined.outcomes] == [
        ("unknown_id", 1),
        ("broken", 2),
        ("broken", 3),
        ("broken", 4),
        ("broken", 5),
    ]


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ([done("a"), done("a")], []),
        ([done("a")], [failed("a")]),
        ([failed("a"), done("a")], []),
    ],
)
def test_of_two_results_the_success_counts(tmp_path: Path, output: list[Any], error: list[Any]) -> None:
    joined = Joined(tmp_path, dump(asked("a")), dump(*output), dump(*error))
    assert joined.counts == OutcomeCounts(submitted=1, succeeded=1, failed=0, expired=0, missing=0, repeated=1)
    assert [outcome.outcome for outcome in joined.outcomes] == [Outcome.REPEATED]
    assert (len(joined.succeeded), joined.retry) == (1, b"")


def test_an_id_used_twice_in_the_input_needs_two_results(tmp_path: Path) -> None:
    twice = dump(asked("a"), asked("a"))
    assert Joined(tmp_path, twice, dump(done("a"))).counts.missing == 1
    assert Joined(tmp_path, twice, dump(done("a"), done("a"))).counts.succeeded == 2
    both = Joined(tmp_path, twice, dump(done("a")), dump(failed("a"))).counts
    assert (both.succeeded, both.failed) == (1, 1)


def test_a_manifest_without_input_needs_the_input_from_elsewhere(tmp_path: Path) -> None:
    manifest = ResultManifest(ref=REF, files=(ResultFile(kind="output", uri=str(tmp_path / "out")),))
    (tmp_path / "out").write_bytes(dump(done("a")))
    (tmp_path / "in").write_bytes(dump(asked("a")))
    uris = {"outcomes_uri": str(tmp_path / "o"), "retry_uri": str(tmp_path / "r")}
    chunks = chunks_from(None)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="input_uri"):
        join_results(manifest, chunks, **uris)
    assert join_results(manifest, chunks, input_uri=str(tmp_path / "in"), **uris).succeeded == 1


def test_an_input_that_the_service_has_deleted_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(dump(done("a")))
    (tmp_path / "in").write_bytes(dump(asked("a")))
    uris = {"outcomes_uri": str(tmp_path / "o"), "retry_uri": str(tmp_path / "r")}
    files = [ResultFile(kind="input", uri="openai://gone"), ResultFile(kind="output", uri=str(tmp_path / "out"))]
    manifest = ResultManifest(ref=REF, files=tuple(files))

    def chunks(uri: str) -> Iterator[bytes]:
        if uri == "openai://gone":
            raise NotFoundError("no such file", status=404)
        yield Path(uri).read_bytes()

    with pytest.raises(NotFoundError, match=r"Give the file that was submitted as input_uri\. no such file"):
        join_results(manifest, chunks, **uris)
    assert join_results(manifest, chunks, input_uri=str(tmp_path / "in"), **uris).succeeded == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"<!doctype html>\n<html>gateway</html>\n",
        b"\n  <html>gateway</html>",
        b'{"error": {"code": 503, "message": "gateway"}}',
        b'{"error": "gateway"}\n',
    ],
)
@pytest.mark.parametrize("counts", [JobCounts(), JobCounts(total=2, succeeded=2, failed=0)])
def test_another_answer_than_the_result_file_makes_no_retry_file(
    tmp_path: Path, answer: bytes, counts: JobCounts
) -> None:
    with pytest.raises(
        UnavailableError, match="is not the batch's result file; something else answered: .*(html|gateway)"
    ):
        Joined(tmp_path, dump(asked("a"), asked("b")), answer, counts=counts)
    assert not (tmp_path / "retry.jsonl").exists()


def test_blank_lines_are_no_requests_and_count_as_lines(tmp_path: Path) -> None:
    joined = Joined(tmp_path, dump(b"\n", asked("a"), b" \r\n", asked("b"), b"\n"), dump(b"\n", done("a")))
    assert (joined.counts.submitted, joined.counts.succeeded, joined.counts.missing) == (2, 1, 1)
    assert [(one.custom_id, one.line) for one in joined.outcomes] == [("b", 4)]
    assert joined.retry == dump(asked("b"))


def test_of_several_result_files_the_file_and_its_own_line_are_named(tmp_path: Path) -> None:
    contents = {"in": dump(asked("a"), asked("b")), "one": dump(done("a"), done("x")), "two": dump(b"\n", failed("b"))}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    kinds = {"in": "input", "one": "output", "two": "output"}
    files = tuple(ResultFile(kind=kind, uri=str(tmp_path / name)) for name, kind in kinds.items())
    outcomes = str(tmp_path / "outcomes")
    join_results(
        ResultManifest(ref=REF, files=files),
        chunks_from(None),  # type: ignore[arg-type]
        outcomes_uri=outcomes,
        retry_uri=str(tmp_path / "retry"),
    )
    assert [(one.custom_id, one.source_uri, one.source_line) for one in read_outcomes(outcomes)] == [
        ("x", str(tmp_path / "one"), 2),
        ("b", str(tmp_path / "two"), 2),
    ]


IDS = st.sampled_from("abcdefgh")
RESULT = st.one_of(
    IDS.map(done),
    IDS.map(failed),
    IDS.map(expired),
    IDS.map(lambda custom_id: {"custom_id": custom_id, "error": None}),
    IDS.map(lambda custom_id: done(custom_id, '{"data": [1]}')),
    IDS.map(lambda custom_id: done(custom_id, {"data": []})),
    st.sampled_from([b"broken\n", b"\n", b'{"custom_id": 5}\n', b"{}\n"]),
)


@given(
    st.lists(IDS, max_size=10),
    st.lists(RESULT, max_size=12),
    st.lists(RESULT, max_size=12),
    st.sampled_from([JobState.SUCCEEDED, JobState.EXPIRED, JobState.CANCELLED]),
    st.integers(1, 200),
)
def test_every_line_is_accounted_for_exactly_once(
    tmp_path_factory: pytest.TempPathFactory,
    ids: list[str],
    output: list[Any],
    error: list[Any],
    ended: JobState,
    chunk: int,
) -> None:
    input_ = dump(*(asked(custom_id) for custom_id in ids))
    joined = Joined(tmp_path_factory.mktemp("join"), input_, dump(*output), dump(*error), ended, chunk)
    counts, outcomes = joined.counts, joined.outcomes

    assert counts.submitted == len(ids) == counts.succeeded + counts.failed + counts.expired + counts.missing
    of_lines = [outcome for outcome in outcomes if outcome.line is not None]
    assert len({outcome.line for outcome in of_lines}) == len(of_lines) == counts.unsuccessful
    assert all(ids[outcome.line - 1] == outcome.custom_id for outcome in of_lines if outcome.line)
    kinds = Counter(outcome.outcome for outcome in outcomes)
    assert kinds == Counter({kind: n for kind in kinds if (n := getattr(counts, kind))})

    again = [orjson.loads(line)["custom_id"] for line in joined.retry.splitlines()]
    assert again == [custom_id for n, custom_id in enumerate(ids, 1) if n in {o.line for o in of_lines}]
    assert Counter(line["custom_id"] for line in joined.succeeded) + Counter(again) == Counter(ids)

    results = [line for line in output + error if line != b"\n"]
    unplaced = counts.repeated + counts.unknown_id + counts.broken
    assert len(results) == counts.succeeded + len([o for o in of_lines if o.source]) + unplaced
    succeeding = {line["custom_id"] for line in output if isinstance(line, dict) and good(line)}
    assert {line["custom_id"] for line in joined.succeeded} == succeeding & set(ids)


@given(
    st.recursive(
        # What is no JSON (NaN, Infinity) is a broken line of its own.
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda some: (
            st.lists(some)
            | st.dictionaries(
                st.sampled_from(["custom_id", "response", "error", "status_code", "body", "message", "code"]), some
            )
        ),
    )
)
def test_no_result_line_breaks_the_join(tmp_path_factory: pytest.TempPathFactory, line: Any) -> None:
    text = json.dumps(line).encode() + b"\n"
    folder = tmp_path_factory.mktemp("join")
    if isinstance(line, dict) and line.get("error") and not line.keys() & {"custom_id", "response"}:
        with pytest.raises(UnavailableError, match="is not the batch's result file"):
            Joined(folder, dump(asked("a")), text, text)
        return
    joined = Joined(folder, dump(asked("a")), text, text)
    counts = joined.counts
    assert counts.submitted == 1 == counts.succeeded + counts.failed + counts.expired + counts.missing


def good(line: dict[str, Any]) -> bool:
    response = line.get("response")
    return response is not None and response["status_code"] == 200 and response["body"] != {"data": []}


THREE = dump(*(asked(name) for name in "abc"))
COUNTS = JobCounts(total=3, succeeded=3, failed=0)


@pytest.mark.parametrize(
    "output",
    [
        b'{"error": {"message": "internal"}}',
        b"<html>\n<body>\nBad gateway\n</body>",
        b"",
        dump(done("a"), done("b"), done("c"))[:-30],
        dump(done("a"), done("b")),
    ],
    ids=["an error with 200", "HTML", "nothing", "cut in a line", "cut after a line"],
)
def test_files_with_fewer_results_than_the_service_counts_give_no_retry_file(tmp_path: Path, output: bytes) -> None:
    with pytest.raises(UnavailableError, match="3 requests by the service's count|is not the batch's result file"):
        Joined(tmp_path, THREE, output, counts=COUNTS)
    assert not (tmp_path / "retry.jsonl").exists()


def test_a_broken_line_among_good_ones_is_the_services_own(tmp_path: Path) -> None:
    joined = Joined(tmp_path, THREE, dump(done("a")) + b"{broken\n" + dump(done("c")), counts=COUNTS)
    assert (joined.counts.succeeded, joined.counts.missing, joined.counts.broken) == (2, 1, 1)


@pytest.mark.parametrize(
    ("line", "is_sent_again"),
    [
        (failed("a", "content_filter", 400), False),
        (failed("a", "context_length_exceeded", 400), False),
        (failed("a", "odd", 400), False),
        (failed("a", "odd", 418), False),
        (done("a", None, 200, {"code": "content_policy_violation", "message": "m"}), False),
        (failed("a", "rate_limit_exceeded", 429), True),
        (failed("a", "insufficient_quota", 429), True),
        (failed("a", "invalid_api_key", 401), True),
        (failed("a", "server_error", 500), True),
        (failed("a", "odd", 409), True),
        (done("a", None, 0), True),
        (done("a", {}), True),
        (done("a", {"data": []}), True),
        (expired("a"), True),
    ],
)
def test_what_is_refused_for_its_content_is_not_paid_for_again(
    tmp_path: Path, line: dict[str, Any], is_sent_again: bool
) -> None:
    joined = Joined(tmp_path, dump(asked("a"), asked("b")), dump(line, done("b")))
    assert joined.retry == (dump(asked("a")) if is_sent_again else b"")
    assert (joined.counts.unsuccessful, joined.counts.refused) == (1, 0 if is_sent_again else 1)


def test_whole_numbers_as_ids_join_by_their_text(tmp_path: Path) -> None:
    asked_for = [{**asked("x"), "custom_id": number} for number in (1, 2)]
    joined = Joined(tmp_path, dump(*asked_for), dump(done("2"), done(1)))
    assert (joined.counts.succeeded, joined.counts.missing, joined.counts.unknown_id) == (2, 0, 0)


def test_an_error_in_another_services_words_is_kept(tmp_path: Path) -> None:
    line = done("a", None, None, {"errorCode": 400, "errorMessage": "The model refuses."})
    (outcome,) = Joined(tmp_path, dump(asked("a")), dump(line)).outcomes
    assert (outcome.code, outcome.message) == ("400", "The model refuses.")

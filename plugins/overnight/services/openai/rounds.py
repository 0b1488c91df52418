"""
Rounds of one batch: lines that failed for a reason that may pass go out again, and the results of all rounds join.

What a round comes to is written beside its input, under names that follow from it, so that a worker that takes over
finds the same files, or writes them again with the same content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from overnight.jobs import JobCounts, JobRef, JobState, JobStatus, ResultFile, ResultManifest
from overnight.services.openai.causes import get_cause
from overnight.services.openai.result_line import LineOutcome, Outcome, input_id
from overnight.services.openai.results import Chunks, OutcomeCounts, join_results, read_outcomes
from overnight.services.openai.scan import id_digest
from overnight.storage import Storage

if TYPE_CHECKING:
    from overnight.services.openai.repair import InvalidAnswers

_NO_RESULT = (Outcome.FAILED, Outcome.EXPIRED, Outcome.MISSING)


class RoundCounts(OutcomeCounts):
    """
    What a round came to.

    :param model: What the batch says it used.
    :param seconds: From the batch's creation to its end.
    :param invalid: Of the failed ones, those whose answer is not what the schema says.
    """

    model: Any = None
    invalid: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Round:
    """
    The files of one round.

    :param input_uri: The input of the first round.
    :param number: 0 for the first round.
    """

    input_uri: str
    number: int

    @property
    def requests_uri(self) -> str:
        """The input of this round."""
        return self.input_uri if self.number == 0 else self._build_uri("requests")

    @property
    def succeeded_uri(self) -> str:
        """The result lines of those that succeeded in this round."""
        return self._build_uri("succeeded")

    @property
    def errors_uri(self) -> str:
        """An error line for each that failed in this round and does not go out again."""
        return self._build_uri("errors")

    @property
    def following(self) -> Round:
        """The next round."""
        return Round(self.input_uri, self.number + 1)

    def collect(
        self,
        manifest: ResultManifest,
        chunks: Chunks,
        ended: JobState,
        storage: Storage,
        *,
        last: bool,
        answers: InvalidAnswers | None = None,
        max_bytes: int | None = None,
    ) -> int:
        """
        Sort the outcomes of this round's batch, and write its files and the next round's input.

        :param last: Whether nothing goes out again.
        :param answers: What finds answers that are not what a schema says, which then go out again. Those of the last
            round are results: the load rejects them, and keeps their text.
        :param max_bytes: Of the next round's input. What has no room for the invalid answer goes out as it was.
        :return: How many requests the next round has.
        :raises ServiceError: a result file cannot be read.
        """
        counts = join_results(
            manifest,
            chunks,
            outcomes_uri=self._build_uri("outcomes"),
            retry_uri=self._build_uri("unsuccessful"),
            succeeded_uri=self.succeeded_uri,
            ended=ended,
            input_uri=self.requests_uri,
            storage=storage,
            examine=answers.examine if answers is not None and not last else None,
        )
        again = self._sort_outcomes(storage, last=last)
        if again:
            self._write_requests(storage, again, answers, max_bytes)
        model, seconds = manifest.detail.get("model"), manifest.detail.get("seconds")
        invalid = answers.count if answers is not None else 0
        noted = RoundCounts(**counts.model_dump(), model=model, seconds=seconds, invalid=invalid)
        with storage.open(self._build_uri("counts"), "wb") as file:
            file.write(noted.model_dump_json().encode() + b"\n")
        return len(again)

    def read_counts(self, storage: Storage) -> RoundCounts:
        """Return what :meth:`collect` counted."""
        with storage.open(self._build_uri("counts")) as file:
            return RoundCounts.model_validate_json(file.read())

    def _sort_outcomes(self, storage: Storage, *, last: bool) -> set[bytes]:
        """Return the digests of the ids that go out again, and write an error line for all others that failed."""
        again: set[bytes] = set()
        with storage.open(self.errors_uri, "wb") as errors:
            for outcome in read_outcomes(self._build_uri("outcomes"), storage):
                if outcome.custom_id is None or outcome.outcome not in _NO_RESULT:
                    continue
                if not last and is_retryable(outcome):
                    again.add(id_digest(outcome.custom_id))
                elif outcome.outcome != Outcome.MISSING:
                    errors.write(orjson.dumps(_to_error_line(outcome), option=orjson.OPT_APPEND_NEWLINE))
        return again

    def _write_requests(
        self, storage: Storage, again: set[bytes], answers: InvalidAnswers | None, max_bytes: int | None
    ) -> None:
        left = self._build_uri("unsuccessful")
        with storage.open(left) as unsuccessful:
            room = max_bytes - sum(map(len, unsuccessful)) if max_bytes is not None else None
        with storage.open(left) as unsuccessful, storage.open(self.following.requests_uri, "wb") as requests:
            for line in unsuccessful:
                custom_id = input_id(line)
                if custom_id is None or id_digest(custom_id) not in again:
                    continue
                request = answers.rewrite(custom_id, line) if answers is not None else line
                growth = len(request) - len(line)
                if room is not None and growth > room:
                    request, growth = line, 0
                room = room - growth if room is not None else None
                requests.write(request)

    def _build_uri(self, kind: str) -> str:
        stem = self.input_uri.removesuffix(".jsonl").removesuffix(".requests")
        suffix = "json" if kind == "counts" else "jsonl"
        return f"{stem}.round-{self.number}.{kind}.{suffix}"


def is_retryable(outcome: LineOutcome) -> bool:
    """
    Say whether the same request may succeed in another round.

    It may when it expired or has no result, or failed for a reason that passes. A code that is not known is not taken
    for one: the request would be paid for again.
    """
    if outcome.outcome in (Outcome.EXPIRED, Outcome.MISSING):
        return True
    row = get_cause(outcome.code, outcome.status)
    return row is not None and row.retryable


def merge_rounds(refs: Sequence[JobRef], input_uri: str, storage: Storage) -> tuple[JobStatus, ResultManifest]:
    """
    Return what all rounds come to, as of one batch: every request is counted once, by its last outcome.

    :param refs: The batches, in the order of their rounds.
    """
    rounds = [Round(input_uri, number) for number in range(len(refs))]
    all_counts = [one.read_counts(storage) for one in rounds]
    total, succeeded = all_counts[0].submitted, sum(counts.succeeded for counts in all_counts)
    counts = JobCounts(total=total, succeeded=succeeded, failed=total - succeeded)
    state = JobState.SUCCEEDED if succeeded == total else JobState.PARTIAL
    files = [ResultFile(kind="output", uri=one.succeeded_uri) for one in rounds]
    files += [ResultFile(kind="error", uri=one.errors_uri) for one in rounds]
    files.append(ResultFile(kind="input", uri=input_uri))
    detail: dict[str, Any] = {
        "rounds": [
            {"id": ref.id, **one.model_dump(include={"submitted", "succeeded"}), **_get_invalid(one)}
            for ref, one in zip(refs, all_counts, strict=True)
        ]
    }
    usage: Counter[str] = Counter()
    # With a round that does not say what it used, the sum of the others is not what all of them used.
    if all(one.usage or not (one.succeeded or one.invalid) for one in all_counts):
        for one in all_counts:
            usage.update(one.usage)
    seconds = [one.seconds for one in all_counts if one.seconds is not None]
    model = next((one.model for one in all_counts if one.model), None)
    known = {"usage": dict(usage), "model": model, "seconds": round(sum(seconds), 3) if seconds else None}
    detail |= {name: value for name, value in known.items() if value}
    status = JobStatus(state=state, raw="completed", counts=counts)
    return status, ResultManifest(ref=refs[0], files=tuple(files), counts=counts, detail=detail)


def _get_invalid(counts: RoundCounts) -> dict[str, int]:
    return {"invalid": counts.invalid} if counts.invalid else {}


def _to_error_line(outcome: LineOutcome) -> dict[str, Any]:
    """Return a line as an error file of the service has it."""
    return {
        "custom_id": outcome.custom_id,
        "response": None if outcome.status is None else {"status_code": outcome.status, "body": None},
        "error": {"code": outcome.code or outcome.outcome, "message": outcome.message or outcome.outcome},
    }

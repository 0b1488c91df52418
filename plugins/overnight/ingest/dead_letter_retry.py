"""Documents that OpenSearch refused, loaded again from dead-letter files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from overnight.errors import SpecError
from overnight.ingest.loading import load
from overnight.ingest.map.rows import Reason
from overnight.ingest.report.dead_letters import DeadLetter, DeadLetterFile, read_dead_letters
from overnight.ingest.report.load_report import LoadReport
from overnight.ingest.request import LoadOptions
from overnight.ingest.write.bulk import EXISTS
from overnight.ingest.write.sink import Sink
from overnight.jsonpath import to_segment
from overnight.storage import Storage

EXAMPLES: Final = 20
"""Places that a group names at most."""
_SERVICE_CODES: Final = frozenset({Reason.SERVICE_ERROR, Reason.INVALID_OUTPUT})
_LINE_CODES: Final = frozenset(Reason) - _SERVICE_CODES

_AGAIN: Final = "start the load again"
LINE_AT_FAULT: Final = f"The line itself is at fault: mend it, or the field map, and {_AGAIN}."
NO_PARTNER: Final = f"A source lacks its row: {_AGAIN} once it is there."
NO_RESULT: Final = "It has no usable result: send it to the AI service again, and load what comes."
DROPPED: Final = f"An ingest pipeline dropped it: change the pipeline's condition and {_AGAIN}."
IS_THERE: Final = "The data stream has a document of this id, and takes no other."
NOT_KEPT: Final = f"The document is longer than 64 KiB, so only its place was kept: {_AGAIN}."


class DeadLetterGroup(msgspec.Struct):
    """
    The dead letters of one outcome and code for which the same has to be done.

    :param remedy: What that is; ``None`` when they can be loaded again as they are.
    :param places: Of the first :data:`EXAMPLES`: the file, the line, and the id where it is known.
    :param reason: Of the first.
    """

    outcome: str
    code: str
    remedy: str | None
    count: int
    places: list[str]
    reason: str


class Retry(NamedTuple):
    """
    What became of dead letters that were loaded again.

    :param report: Of the load; ``None`` when there was nothing that could be loaded.
    :param not_loaded: Those that could not be loaded again.
    :param left_uri: The file with these and with those that OpenSearch refused again; ``None`` when there are none.
    """

    report: LoadReport | None
    not_loaded: list[DeadLetterGroup]
    left_uri: str | None


def find_remedy(record: DeadLetter) -> str | None:
    """Return what has to be done before a document can be indexed; ``None`` when its record is enough to load it."""
    if record.outcome == "missing":
        return NO_PARTNER
    if record.outcome == "dropped":
        return DROPPED
    if record.code == EXISTS.code:
        return IS_THERE
    if record.is_document:
        return None if record.text is not None and record.id is not None else NOT_KEPT
    return LINE_AT_FAULT if record.code in _LINE_CODES else NO_RESULT


def group(records: Iterable[DeadLetter]) -> list[DeadLetterGroup]:
    """Return dead letters in groups, the largest first."""
    groups: dict[tuple[str, str, str | None], DeadLetterGroup] = {}
    for record in records:
        key = (record.outcome, record.code, find_remedy(record))
        found = groups.get(key)
        if found is None:
            found = groups[key] = DeadLetterGroup(*key, count=0, places=[], reason=record.reason)
        found.count += 1
        if len(found.places) < EXAMPLES:
            found.places.append(f"{record.uri}, line {record.line}{f', id {record.id}' if record.id else ''}")
    return sorted(groups.values(), key=lambda one: -one.count)


def retry_dead_letters(
    uris: Sequence[str],
    index: str,
    *,
    target: Sink,
    options: LoadOptions,
    storage: Storage,
) -> Retry:
    """
    Load the documents again that OpenSearch refused, as they were sent to it then.

    Of several records of one id the last is loaded. Whatever is not in the index after that is written to
    ``options.dead_letter_uri``, each with the place it came from.

    :param uris: Dead-letter files.
    :param index: The index, alias or data stream that they are written to.
    :param options: Of the load; its checkpoint, its format and what it does with missing paths are left out.
    :raises SpecError: the load is refused; nothing was written.
    """
    if options.dead_letter_uri is None or options.dead_letter_uri in uris:
        raise SpecError("Give another file for what is left than the one that is read.")
    chosen: dict[str, int] = {}
    fields: dict[str, int] = {}
    has_routing = False
    for number, record in enumerate(read_all(uris, storage)):
        if find_remedy(record) is None:
            chosen[str(record.id)] = number
            has_routing = has_routing or record.routing is not None
            for name in msgspec.json.decode(str(record.text), type=dict[str, msgspec.Raw]):
                fields[name] = fields.get(name, 0) + 1
    not_loaded = group(record for record in read_all(uris, storage) if find_remedy(record) is not None)
    report, again = None, list[DeadLetter]()
    if chosen:
        with tempfile.TemporaryDirectory(prefix="overnight-retry-", dir=options.spool_dir) as folder:
            source, refused = Path(folder) / "documents.jsonl", Path(folder) / "refused.jsonl"
            records = enumerate(read_all(uris, storage))
            _write(source, (record for number, record in records if chosen.get(str(record.id)) == number))
            report = load(
                _build_request(source, index, fields, has_routing=has_routing),
                target=target,
                options=_build_options(options, refused, is_uniform=set(fields.values()) == {len(chosen)}),
            )
            if refused.exists():
                again = list(read_dead_letters(str(refused)))
    left_uri = _write_left(uris, chosen, again, options.dead_letter_uri, storage)
    if report is not None:
        # Its places are those in a temporary file.
        changes = {"dead_letter_uri": left_uri, "rejected_sample": (), "sources": ()}
        report = report.model_copy(update=changes)
    return Retry(report, not_loaded, left_uri)


def read_all(uris: Sequence[str], storage: Storage) -> Iterator[DeadLetter]:
    """
    Yield the records of several files.

    :raises SpecError: one is no dead-letter file.
    """
    for uri in uris:
        try:
            yield from read_dead_letters(uri, storage)
        except msgspec.MsgspecError as error:
            raise SpecError(f"{uri} is no dead-letter file: {error}.") from error


def _write(path: Path, records: Iterable[DeadLetter]) -> None:
    with path.open("wb") as file:
        for record in records:
            # The document's own bytes: its values arrive as they were written.
            names = [b'{"id":%b' % msgspec.json.encode(record.id)]
            if record.routing is not None:
                names.append(b'"routing":%b' % msgspec.json.encode(record.routing))
            file.write(b",".join(names) + b',"document":%b}\n' % str(record.text).encode())


def _build_request(source: Path, index: str, fields: Iterable[str], *, has_routing: bool) -> dict[str, Any]:
    mapped = {name: f"$.document{to_segment(name)}" for name in fields}
    routing = {"_routing": "$.routing"} if has_routing else {}
    return {
        "index_name": index,
        "field_map": {"_id": "$.id", **routing, **mapped},
        "data_source": {"source": [str(source)]},
    }


def _build_options(options: LoadOptions, refused: Path, *, is_uniform: bool) -> LoadOptions:
    return options.model_copy(
        update={
            "dead_letter_uri": str(refused),
            "checkpoint_uri": None,
            "format": "plain",
            # When all documents have the same fields, the load knows that it loses none.
            "missing_path": "reject" if is_uniform else "omit",
            "duplicates": "reject",
        }
    )


def _write_left(
    uris: Sequence[str], chosen: Mapping[str, int], again: Sequence[DeadLetter], uri: str, storage: Storage
) -> str | None:
    """Write the records of what is not in the index, those that were loaded in vain with their new reason."""
    news = {record.id: record for record in again}
    file = DeadLetterFile(uri, storage)
    try:
        for number, record in enumerate(read_all(uris, storage)):
            if find_remedy(record) is not None:
                file.write([record])
            elif chosen.get(str(record.id)) == number and (new := news.get(record.id)) is not None:
                changes = {"outcome": new.outcome, "code": new.code, "reason": new.reason}
                file.write([msgspec.structs.replace(record, **changes)])
        return uri if file.size else None
    finally:
        file.close()


def find_dead_letters(uris: Iterable[str], storage: Storage) -> tuple[list[str], set[str]]:
    """
    Return the dead-letter files that URIs stand for, and the indices that are named with them.

    :param uris: Dead-letter files, globs, prefixes, or the JSON report of a load or of a run, which names its files.
    :return: No files where a report names none: all its documents are in the index.
    :raises SpecError: there is no such file.
    """
    files: list[str] = []
    indices: set[str] = set()
    listing = storage.match_files(uris)
    if not listing.files:
        raise SpecError(f"No file matches. {listing.remark}".rstrip())
    for uri in (file.uri for file in listing.files):
        report = _read_report(uri, storage)
        if report is None:
            files.append(uri)
            continue
        named = [*report.get("dead_letter_uris", ()), report.get("dead_letter_uri")]
        files += [one for one in named if isinstance(one, str)]
        if isinstance(report.get("index"), str) and report["index"]:
            indices.add(report["index"])
    return list(dict.fromkeys(files)), indices


def _read_report(uri: str, storage: Storage) -> dict[str, Any] | None:
    """Return a report; ``None`` when the file is none, as a file of dead letters is."""
    if not uri.endswith(".json"):
        return None
    with storage.open(uri, "rb") as file:
        try:
            found = json.load(file)
        except ValueError:
            return None
    return found if isinstance(found, dict) and "submitted" in found else None

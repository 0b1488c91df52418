"""A run's report with the documents that were not indexed, and a search over what it indexed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.orm import Session

from overnight.hooks.openai import OpenAIHook
from overnight.hooks.opensearch import OpenSearchHook
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.ingest.report.dead_letters import DeadLetter, read_dead_letters
from overnight.ingest.search import Hit, search
from overnight.operators.load import REPORT_KEY
from overnight.pages.jobs import RETURNED, read_xcom
from overnight.services.openai.embed import embed
from overnight.storage import Storage

SHOWN: Final = 100
"""How many documents that were not indexed a page shows of each file; all are in the download."""
_CHUNK: Final = 1 << 16


class RunReport(BaseModel):
    """The XCom of a pipeline's last step, as far as the page shows it; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    page: str
    uri: str
    index: str = ""
    submitted: int = 0
    reused: int = 0
    indexed: int = 0
    unchanged: int = 0
    dropped: int = 0
    rejected: int = 0
    missing: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = {}
    dead_letter_uris: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    usage: dict[str, int] = {}


def find_report(session: Session, dag_id: str, run_id: str) -> RunReport | None:
    """Return a run's report; ``None`` while it has none."""
    found = read_xcom(session, dag_id, run_id, "report", REPORT_KEY)
    try:
        return RunReport.model_validate(found) if isinstance(found, Mapping) else None
    except ValidationError:
        return None


def find_settings(session: Session, dag_id: str, run_id: str) -> Mapping[str, Any]:
    """Return what the run's first step left: its config, with the connections it used."""
    found = read_xcom(session, dag_id, run_id, "configure", RETURNED)
    return found if isinstance(found, Mapping) else {}


def open_storage(settings: Mapping[str, Any]) -> Storage:
    """Return the storage that a run wrote to."""
    return connected_storage(settings.get("aws_conn_id", DEFAULT_AWS_CONN_ID))


def read_first(uri: str, storage: Storage) -> list[DeadLetter]:
    """Return the first documents of a file, :data:`SHOWN` at most."""
    return list(itertools.islice(read_dead_letters(uri, storage), SHOWN))


def read_bytes(uri: str, storage: Storage) -> Iterator[bytes]:
    """
    Return a file piece by piece.

    :raises MissingFileError: it is not there; at once, and not with the first piece.
    """
    return _read_pieces(storage.open(uri, "rb"))


def _read_pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_CHUNK):
            yield piece


def search_run(report: RunReport, settings: Mapping[str, Any], text: str) -> list[Hit]:
    """
    Return the documents of a run's index that are nearest to a text.

    :raises OvernightError: a connection is not there, or a server does not answer.
    """
    hook = OpenAIHook(settings["openai_conn_id"]) if settings.get("openai_conn_id") else None

    def make_vector(words: str, dimension: int) -> list[float]:
        if hook is None:
            raise ValueError("this run used no connection to OpenAI")
        with hook.client() as client:
            return client.run(embed(words, str(settings.get("model")), dimension))

    with OpenSearchHook(settings.get("opensearch_conn_id")).target() as target:
        return search(target, report.index, text, embed=make_vector if hook is not None else None)

"""
Create a thing at a service once: create; if the answer is lost, look; only then create again.

The only place for that rule. Every service gives it two flows, one that sends the creating call and one that looks
through the service's list. The creating call has ``Retry.REJECTED``: the transport must not repeat by itself what may
have been carried out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, TypeVar

from overnight.errors import (
    CreatedUnknownError,
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    TransientError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import FoundJob, JobKey, JobRef
from overnight.transport.flow import Flow, Pause

log = logging.getLogger(__name__)

CLOCK_SKEW: Final = timedelta(hours=1)
"""How far a service's clock may be behind ours. It only makes a listing longer, so it is generous."""
LOOKUP_WAITS: Final = (1.0, 3.0, 8.0)
"""Seconds before each look for what was perhaps created: lists lag behind."""
CREATE_TRIES: Final = 3
"""How often something is created at most; only after a lost answer that no look finds carried out."""

_EVER: Final = datetime.fromtimestamp(0, UTC)
"""A thing that has our name may be of any earlier try."""

T = TypeVar("T")
Create: TypeAlias = Callable[[], Flow[T | None]]
"""Sends the creating call; returns what was created, or ``None`` when a success does not say what."""
Find: TypeAlias = Callable[[datetime], Flow[T | None]]
"""Looks for what was created since an aware time; returns ``None`` when it is not listed, and raises when it cannot
look."""


def create_once(
    create: Create[JobRef],
    find: Find[FoundJob],
    key: JobKey,
    *,
    is_taken: Callable[[ServiceError], bool] = lambda _: False,
) -> Flow[JobRef]:
    """
    Create the job that ``key`` names, or return it when an attempt without an answer created it.

    :param create: Sends the creating call with ``Retry.REJECTED`` and returns the job's reference, or ``None`` when the
        answer is a success (2xx) without a readable id.
    :param find: The service's own ``find`` for ``key``, from a time on. A job of another generation or fingerprint
        does not count.
    :param is_taken: Whether a refusal says that the job is there already, for a service whose jobs have names.
    :raises CreatedUnknownError: the service accepted the job, or may have, and it cannot be found.
    :raises UnavailableError: no attempt got an answer, and no look found a job.
    """

    def find_ours(since: datetime) -> Flow[JobRef | None]:
        found = yield from find(since)
        return found.ref if found is not None and found.is_for(key) else None

    return (yield from create_object_once(create, find_ours, f"the job {key.name}", is_taken=is_taken))


def create_object_once(
    create: Create[T],
    find: Find[T],
    what: str,
    *,
    is_taken: Callable[[ServiceError], bool] = lambda _: False,
) -> Flow[T]:
    """
    Create a thing that is no job (a directory, an uploaded file) by the rule of :func:`create_once`.

    :param find: Returns the very thing, or ``None``.
    :param what: The thing, for a log and an error: ``the directory x``.
    """
    since = datetime.now(UTC) - CLOCK_SKEW
    attempt = 0
    while True:
        attempt += 1
        lost: UnavailableError | None = None
        try:
            created = yield from create()
            if created is not None:
                return created
        except UnavailableError as error:
            lost = error
        except ServiceError as error:
            if not is_taken(error):
                raise
            log.info("The service says that %s is there already; looking for it. %s", what, error)
            found = yield from _look(find, _EVER, what, error, carried_out=False)
            if found is None:
                raise
            return found
        carried_out = lost is None or _is_success(lost)
        log.warning("It is not known whether %s was created; looking for it. %s", what, lost or "The answer has no id.")
        found = yield from _look(find, since, what, lost, carried_out=carried_out)
        if found is not None:
            log.info("%s had been created.", what.capitalize())
            return found
        if lost is None or carried_out:
            raise _build_unknown_error(what, "it is not in the service's list") from lost
        if attempt == CREATE_TRIES:
            raise lost


def _look(find: Find[T], since: datetime, what: str, lost: ServiceError | None, *, carried_out: bool) -> Flow[T | None]:
    """Look until it is found; ``None`` only when the last and latest look was answered and did not find it."""
    failure: TransientError | None = None
    for seconds in LOOKUP_WAITS:
        yield Pause(seconds)
        try:
            found = yield from find(since)
        except TransientError as error:
            failure = error
            continue
        except (RequestRefusedError, NotFoundError, UnsupportedError) as error:
            raise _build_unknown_error(what, f"it cannot be looked for: {error}") from lost
        if found is not None:
            return found
        failure = None
    if failure is None:
        return None
    if carried_out:
        raise _build_unknown_error(what, f"it cannot be looked for: {failure}") from lost
    # The next try of the task looks first.
    raise failure


def _is_success(error: ServiceError) -> bool:
    """Whether an unreadable answer had a status of success."""
    return error.status is not None and 200 <= error.status < 300


def _build_unknown_error(what: str, why: str) -> CreatedUnknownError:
    return CreatedUnknownError(
        f"The service was asked to create {what}; its answer is lost or has no id, and {why.rstrip('.')}. It is not "
        "created again, for that could pay twice. See at the service whether it is there; if it is not, clear the task."
    )

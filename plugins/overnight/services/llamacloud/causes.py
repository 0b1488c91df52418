"""
What LlamaCloud's words mean: the statuses of refused calls, and the texts and codes with which a file's job fails.

A job says why it failed in ``error_message``, which is a text, a code, or both. Codes and their meanings:
https://developers.llamaindex.ai/llamaparse/general/troubleshooting/; the job's own time-out:
https://developers.llamaindex.ai/llamaparse/parse/v1/features/job_parameters/. A batch has no error of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from overnight.errors import shorten
from overnight.jobs.cause import Cause, find_text_cause, text_cause
from overnight.jobs.model import FailureCause

MAX_QUOTE: Final = 500

CALL_CAUSES: Final[Mapping[int, Cause]] = {
    401: Cause(
        FailureCause.CREDENTIALS,
        False,
        "Check the API key in the connection, and that its region (na, eu) is the one the key was made in.",
    ),
    402: Cause(
        FailureCause.LIMITS,
        False,
        "The account's credits are used up; add credits or wait for the next billing cycle.",
    ),
    403: Cause(
        FailureCause.CREDENTIALS,
        False,
        "The key may not do this: check project_id and organization_id in the connection.",
    ),
    404: Cause(
        FailureCause.INPUT,
        False,
        "Check the id, and that the connection's region, project_id and organization_id are the ones that own it.",
    ),
    413: Cause(FailureCause.INPUT, False, "The file is larger than the service takes."),
    429: Cause(FailureCause.LIMITS, True, "The project's rate limit is reached."),
}
"""By the HTTP status of a refused call."""

TEXT_CAUSES: Final = (
    text_cause(
        r"credits?\b.*(used|exceed|exhaust|insufficient|not enough)|(insufficient|not enough|out of).*\bcredits?\b"
        r"|payment required|\bquota\b|\b402\b",
        FailureCause.LIMITS,
        "The account's credits or quota are used up; add to them, or wait for the next billing cycle.",
    ),
    text_cause(
        r"rate.?limit|too.?many.?requests|throttl|\b429\b",
        FailureCause.SERVICE,
        "The service had too much to do for this project; submit again.",
    ),
    text_cause(
        r"unauthorized|forbidden|permission|\b401\b|\b403\b",
        FailureCause.CREDENTIALS,
        "Check that the key's project may read the file and use the configuration.",
    ),
    text_cause(
        r"pdf_is_protected|password|encrypt|\bdrm\b",
        FailureCause.INPUT,
        "Remove the file's protection.",
    ),
    text_cause(
        r"unsupported.(file|type|format)|(type|format) (is )?not supported",
        FailureCause.INPUT,
        "Leave the file out, or convert it to a type that the service parses.",
    ),
    text_cause(
        r"no_data_found_in_file|no (data|text|content|pages?) (was |were )?found|(file|document) is empty|empty file",
        FailureCause.INPUT,
        "There is nothing to parse in the file; leave it out.",
    ),
    text_cause(
        r"too (large|many pages)|(size|page)s?.{0,20}\b(limit|maximum|exceed)|exceeds? the (maximum|limit)",
        FailureCause.INPUT,
        "Cut the file into smaller ones.",
    ),
    text_cause(
        r"pdf_is_broken|corrupt|damaged|cannot be read|invalid (pdf|file)|malformed",
        FailureCause.INPUT,
        "The file is broken; write it anew.",
    ),
    text_cause(
        r"data.?schema|schema (is )?(invalid|not valid)|invalid.{0,20}(parameter|configuration|schema)",
        FailureCause.INPUT,
        "Correct the configuration's parameters.",
    ),
    text_cause(
        r"time.?d?.?out|\bexpired\b",
        FailureCause.SERVICE,
        "The service ran out of time for the file; submit again, or give a faster tier or a longer job_timeout.",
    ),
    text_cause(
        r"internal|unexpected|generic_error|unavailable|overloaded|temporar|try again|connection (error|reset)"
        r"|could not be associated with a job|\b50[0-9]\b",
        FailureCause.SERVICE,
        "The service failed; submit again.",
    ),
)
"""The first row that is found in a text counts, so that limits and protection come before what is said of both."""


def get_cause(text: str) -> Cause | None:
    """Return what a file's error means; ``None`` for words that no row has."""
    return find_text_cause(TEXT_CAUSES, text)


def sum_up(errors: Iterable[str]) -> tuple[FailureCause | None, str]:
    """
    Return who can mend a job of which every file failed, and how; the first error that is known decides.

    :param errors: What the files' jobs say.
    """
    first = None
    for error in errors:
        first = first or error
        row = get_cause(error)
        if row is not None:
            return row.cause, row.remedy
    if not first:
        return None, "The service does not say why. Look at the jobs there."
    return None, (
        f"Overnight does not know what this error means: {shorten(first, MAX_QUOTE)} It is not retried; clear the task "
        "once its cause is mended."
    )

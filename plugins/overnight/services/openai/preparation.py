"""The step before the batches: documents become batch input, and what it costs is known before it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from overnight.costs.estimate import CostEstimate
from overnight.costs.prices import PriceTable
from overnight.errors import SpecError
from overnight.jobs.allowance import Allowance
from overnight.services.openai.cached_answers import CachedService
from overnight.services.openai.choices import CacheMode, OnBadDocument
from overnight.services.openai.documents import read_documents
from overnight.services.openai.input import BuiltInput, build
from overnight.services.openai.limits import Limits
from overnight.services.openai.request_function import RequestFunction
from overnight.services.openai.reuse import build_reusing
from overnight.services.openai.template import RequestTemplate
from overnight.services.openai.tokens import find_counter
from overnight.storage import Storage


class PreparedInput(NamedTuple):
    """Batch input that was written, and what it costs."""

    built: BuiltInput
    estimate: CostEstimate


def prepare_input(
    uris: Sequence[str],
    template: RequestTemplate | RequestFunction,
    target: str,
    *,
    storage: Storage,
    prices: PriceTable,
    limits: Limits | None = None,
    on_bad: OnBadDocument = "fail",
    cache: CachedService | None = None,
    mode: CacheMode = "off",
) -> PreparedInput:
    """
    Write the requests for the documents of files, and price them.

    :param uris: Files; there may be none, and no document in them.
    :param cache: Of answers that were paid for, and ``mode``, what is done with it; not for a function's requests.
    :raises InputError: with ``on_bad="fail"``, some document is bad; nothing is left in the folder.

    The other parameters are those of :func:`~overnight.services.openai.input.build`.
    """
    documents = read_documents(uris, storage)
    limits, counter = limits or Limits(), find_counter(template.model)
    if cache is not None and isinstance(template, RequestTemplate):
        built = build_reusing(
            documents,
            template,
            target,
            service=cache,
            mode=mode,
            storage=storage,
            limits=limits,
            on_bad=on_bad,
            counter=counter,
        )
    else:
        built = build(documents, template, target, storage=storage, limits=limits, on_bad=on_bad, counter=counter)
    return PreparedInput(built, price_input(built, template, prices))


def price_input(built: BuiltInput, template: RequestTemplate | RequestFunction, prices: PriceTable) -> CostEstimate:
    """Return what batch input costs that :func:`prepare_input` has written."""
    return CostEstimate.of(built.measure(template.model, find_counter(template.model).how), prices)


def check_rejected(built: BuiltInput, allowed: Allowance | None) -> str | None:
    """
    Say how many documents were rejected; ``None`` when none was.

    :param allowed: How many may be; ``None`` for any number.
    :raises SpecError: more were, or none is left to send.
    """
    if not built.rejected:
        return None
    text = f"{built.rejected:,} of {built.documents:,} documents were rejected; {built.rejected_uri} has them."
    if allowed is not None and not allowed.allows(built.rejected, built.documents):
        raise SpecError(f"{text} That is more than allowed_failures={allowed}; nothing was submitted.")
    if not built.parts and not built.reused:
        raise SpecError(f"{text} None is left to send.")
    return text


def describe_reused(built: BuiltInput) -> str:
    """Say how many documents were not sent, since their answers are there or come anyway."""
    reused, repeated = (sum(part.documents for part in built.reused), sum(part.repeated for part in built.parts))
    return (
        f"Answers of {reused:,} documents are in the cache. {repeated:,} more have the request of another one, which "
        "is sent once."
    )

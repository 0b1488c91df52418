"""The quota of enqueued tokens: per model, over all batches that are not over."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from overnight.sandbox.openai.batches import BatchRecord, BatchStore
from overnight.sandbox.openai.errors import ApiError
from overnight.sandbox.openai.inputs import check
from overnight.sandbox.openai.settings import Settings

CODE = "token_limit_exceeded"


class TokenQueue:
    """
    What is enqueued, the most that ever was, and what the quota says of one batch more.

    :param settings: Read anew for each batch.
    """

    def __init__(self, settings: Settings, batches: BatchStore) -> None:
        self._settings = settings
        self._batches = batches
        self._peaks: dict[str, int] = {}

    def find_refusal(self, batch: BatchRecord, model: str | None, tokens: int) -> str | None:
        """
        Return what the service says when a batch is over the quota, and note the batch's tokens when it is not.

        :param batch: The batch itself is not counted among those before it.
        """
        queued = self._count((other for other in self._batches.unfinished() if other.id != batch.id), model)
        limit = self._settings.limits.enqueued_tokens
        if limit is not None and queued + tokens > limit:
            return (
                f"Enqueued token limit reached for {model} in organization org-sandbox. Limit: {limit:,} enqueued "
                "tokens. Please try again once some in_progress batches have been completed."
            )
        if model is not None:
            self._peaks[model] = max(self._peaks.get(model, 0), queued + tokens)
        return None

    def admit(self, batch: BatchRecord, file: Path) -> None:
        """
        Check a batch that is about to be created, where the quota is checked at once; an invalid file passes.

        :raises ApiError: 429, when the batch is over the quota.
        """
        if self._settings.limits.enqueued_check != "create":
            return
        checked = check(file, batch.endpoint, self._settings, by_deployment=batch.by_deployment)
        if checked.errors:
            return
        refusal = self.find_refusal(batch, checked.model, checked.tokens)
        if refusal is not None:
            retry = {"Retry-After": f"{self._settings.faults.retry_after:g}"}
            raise ApiError(429, refusal, type="tokens", code=CODE, headers=retry)
        batch.model, batch.enqueued_tokens = checked.model, checked.tokens

    def public(self) -> dict[str, dict[str, int]]:
        """Return the tokens of each model: those enqueued now, and the most that were at one time."""
        unfinished = self._batches.unfinished()
        models = {batch.model for batch in unfinished if batch.model is not None} | self._peaks.keys()
        return {
            model: {"enqueued": self._count(unfinished, model), "peak": self._peaks.get(model, 0)}
            for model in sorted(models)
        }

    @staticmethod
    def _count(batches: Iterable[BatchRecord], model: str | None) -> int:
        return sum(batch.enqueued_tokens for batch in batches if batch.model == model)

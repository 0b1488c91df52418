"""What the parts of a running emulator share."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from fastapi import Request

from overnight.sandbox.emulator.requests import Requests
from overnight.sandbox.emulator.sections import Sections
from overnight.sandbox.llamacloud.errors import ApiError
from overnight.sandbox.llamacloud.faults import Decisions
from overnight.sandbox.llamacloud.settings import Settings
from overnight.sandbox.llamacloud.store import Record, Store

PRESETS = {
    "cfg-PARSE_FAST": "fast",
    "cfg-PARSE_COST_EFFECTIVE": "cost_effective",
    "cfg-PARSE_AGENTIC": "agentic",
    "cfg-PARSE_AGENTIC_PLUS": "agentic_plus",
}
"""The built-in parse configurations."""


@dataclass
class State:
    """The store, and the settings that everything reads anew."""

    settings: Settings
    store: Store
    decisions: Decisions
    sections: Sections
    requests: Requests = field(default_factory=Requests)
    _uploads: deque[float] = field(default_factory=deque)

    @classmethod
    def open(cls, settings: Settings) -> State:
        """Open the data folder, which is made when it is missing."""
        decisions = Decisions(settings.seed)
        sections = Sections(settings, decisions, ("faults", "limits", "pace"), beside=("clock", "requests", "health"))
        return cls(settings, Store(settings.data_dir), decisions, sections)

    def admit_upload(self) -> None:
        """
        Count an upload.

        :raises ApiError: 429, there were too many of late.
        """
        limits, now = self.settings.limits, time.monotonic()
        while self._uploads and now - self._uploads[0] >= limits.upload_window:
            self._uploads.popleft()
        if len(self._uploads) >= limits.uploads_per_window:
            wait = limits.upload_window - (now - self._uploads[0])
            raise ApiError(429, "Rate limit exceeded", {"Retry-After": str(max(1, round(wait)))})
        self._uploads.append(now)

    def configuration(self, configuration_id: str, product_type: str, project: str) -> dict[str, Any]:
        """
        Return the parameters of a configuration or preset.

        :raises ApiError: 404, there is none; 400, it is for another product.
        """
        if configuration_id in PRESETS:
            found: Record = {
                "product_type": "parse_v2",
                "parameters": {"product_type": "parse_v2", "tier": PRESETS[configuration_id], "version": "latest"},
            }
        else:
            found = self.store.get("configuration", configuration_id, parent=project)
        if found["product_type"] != product_type:
            raise ApiError(
                400, f"Configuration {configuration_id} is for {found['product_type']}, and the job is {product_type}"
            )
        return cast("dict[str, Any]", found["parameters"])

    def presigned(self, request: Request, name: str) -> dict[str, Any]:
        """Return a URL that hands out a content without a key, for a while."""
        expires = self.store.now() + timedelta(seconds=self.settings.limits.presigned_seconds)
        stamp = str(int(expires.timestamp()))
        url = f"{request.base_url}presigned/{name}?expires={stamp}&signature={self._sign(name, stamp)}"
        return {"url": url, "expires_at": expires.isoformat(), "form_fields": None}

    def check_presigned(self, name: str, expires: str, signature: str) -> None:
        """
        Check a presigned URL.

        :raises ApiError: 403, it is not one of ours or no longer good.
        """
        if not hmac.compare_digest(signature, self._sign(name, expires)):
            raise ApiError(403, "SignatureDoesNotMatch")
        if int(expires) <= self.store.now().timestamp():
            raise ApiError(403, "Request has expired")

    def _sign(self, name: str, expires: str) -> str:
        secret = self.settings.api_key.get_secret_value().encode()
        return hmac.new(secret, f"{name}:{expires}".encode(), hashlib.sha256).hexdigest()


def within(record: Record, field_name: str, after: datetime | None, before: datetime | None) -> bool:
    """Whether a record's time lies between two others, these included."""
    moment = datetime.fromisoformat(record[field_name])
    return (after is None or moment >= aware(after)) and (before is None or moment <= aware(before))


def aware(moment: datetime) -> datetime:
    """Return a time that without a zone is meant in UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

"""Who is asking for a job: the same on every try, another for every generation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field

_NAME = re.compile(r"overnight-(?P<tag>[0-9a-f]{20})-g(?P<generation>\d+)-(?P<fingerprint>[0-9a-f]{16})")


def compute_fingerprint(material: Mapping[str, Any]) -> str:
    """
    Return a short digest of everything that decides what a job computes and who pays for it.

    :param material: JSON-serializable values. Leave out what may change between tries without making it
        another job (try number, poll interval, deadline), and every secret.
    :return: 16 lower-case hex digits (64 bits: collisions matter only within one task instance).
    """
    return hashlib.sha256(orjson.dumps(material, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


class JobName(NamedTuple):
    """The parts that can be read back from a job's name at the service."""

    tag: str
    generation: int
    fingerprint: str


class JobKey(BaseModel):
    """
    The identity of one job of one task instance.

    The try number is left out on purpose: a retry must compute the same key as the attempt before it, to
    find that attempt's job. Clearing a finished task raises the generation instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    generation: int = Field(default=0, ge=0)
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")

    @property
    def tag(self) -> str:
        """20 hex digits for the task instance, the same in every generation and for every spec."""
        # NUL cannot occur in an Airflow id, so no two task instances join to the same text.
        identity = "\x00".join([self.dag_id, self.task_id, self.run_id, str(self.map_index)])
        return hashlib.sha256(identity.encode()).hexdigest()[:20]

    @property
    def name(self) -> str:
        """
        A deterministic job name of at most 63 letters, digits and hyphens.

        The narrowest service sets the form: SageMaker's ``[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}``.
        """
        return f"overnight-{self.tag}-g{self.generation}-{self.fingerprint}"

    @staticmethod
    def parse_name(name: str) -> JobName | None:
        """Read a job name of ours back, or return ``None`` when it is somebody else's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return JobName(match["tag"], int(match["generation"]), match["fingerprint"])

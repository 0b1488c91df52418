"""The tags that Overnight puts on what it makes at a service, beside those of the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

TAG_PREFIX: Final = "overnight_"
TagsT = TypeVar("TagsT", bound=Mapping[str, object])


def refuse_own_tags(metadata: TagsT) -> TagsT:
    """
    Return a user's tags.

    :raises ValueError: one of them has a name of Overnight's.
    """
    ours = [key for key in metadata if key.startswith(TAG_PREFIX)]
    if ours:
        raise ValueError(f"metadata keys that begin with {TAG_PREFIX!r} are Overnight's own: {ours}")
    return metadata

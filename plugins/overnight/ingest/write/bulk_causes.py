"""What an error of a ``_bulk`` item means: for this document, for the whole index, or only for now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Scope(Enum):
    """What an error of one item says about the others."""

    DOCUMENT = "document"
    """OpenSearch will never take this document."""
    INDEX = "index"
    """No document of this load can be written until somebody changes the index, the alias or the permissions."""
    BUSY = "busy"
    """The document can be sent again; fewer at a time are better."""
    NODE = "node"
    """A node is going away; the document can be sent again."""
    CONFLICT = "conflict"
    """Somebody else changed the document at the same time; it can be sent again."""


@dataclass(frozen=True)
class ItemCause:
    """
    One row of the table.

    :param scope: What the error is about.
    :param remedy: What the user does about it; empty for :attr:`Scope.DOCUMENT`, where the dead letter has
        OpenSearch's own words.
    """

    scope: Scope
    remedy: str = ""


DOCUMENT: Final = ItemCause(Scope.DOCUMENT)
_NODE: Final = ItemCause(Scope.NODE, "Wait until the cluster is healthy again.")
_CONFLICT: Final = ItemCause(Scope.CONFLICT, "Something else writes the same documents; load when it does not.")
_FULL: Final = ItemCause(
    Scope.BUSY,
    "A data node's disk is full: free space or add a node. OpenSearch lifts the block by itself when there is room.",
)
_QUEUE: Final = ItemCause(Scope.BUSY, "Lower max_in_flight or bulk_bytes, or give the cluster more CPU.")
_MEMORY: Final = ItemCause(Scope.BUSY, "Lower max_in_flight or bulk_bytes, or give the cluster more memory.")
_PIPELINE: Final = ItemCause(
    Scope.BUSY,
    "The ingest pipeline's remote model or service is overloaded or limits the rate: lower max_in_flight and "
    "bulk_bytes, or raise that limit.",
)

_FORBIDDEN: Final = ItemCause(
    Scope.INDEX, "The OpenSearch user lacks the permission indices:data/write/bulk* or indices:data/write/index here."
)
_BLOCKED: Final = ItemCause(
    Scope.INDEX, "The index does not take writes: set index.blocks.write (or read_only) to null in its settings."
)
_CLOSED: Final = ItemCause(Scope.INDEX, "The index is closed: open it (POST /<index>/_open).")
_VANISHED: Final = ItemCause(Scope.INDEX, "The index vanished during the load: create it again.")
_SHARDS: Final = ItemCause(Scope.INDEX, "Delete indices that are not used, or raise cluster.max_shards_per_node.")

# A node that is stopped answers with these and statuses of its own (500, 404) for the documents on their way.
_NODE_CODES: Final = frozenset(
    {
        "already_closed_exception",
        "illegal_index_shard_state_exception",
        "index_shard_closed_exception",
        "index_shard_not_started_exception",
        "no_shard_available_action_exception",
        "node_closed_exception",
        "node_disconnected_exception",
        "node_not_connected_exception",
        "shard_not_found_exception",
        "shard_not_in_primary_mode_exception",
        "unavailable_shards_exception",
    }
)

_INDEX_CODES: Final = {
    "index_closed_exception": _CLOSED,
    "index_not_found_exception": _VANISHED,
    "security_exception": _FORBIDDEN,
}

# illegal_argument_exception and validation_exception say everything in their reason.
_INDEX_REASONS: Final = (
    (
        re.compile(r"pipeline with id \[.*\] does not exist"),
        ItemCause(Scope.INDEX, "Create the ingest pipeline, or take it out of the index's settings."),
    ),
    (
        re.compile(r"no write index is defined for alias"),
        ItemCause(Scope.INDEX, "Mark one index of the alias with is_write_index: true, or name the index itself."),
    ),
    (
        re.compile(r"op_type of create are allowed in data streams"),
        ItemCause(Scope.INDEX, "The name became a data stream during the load; start the load again."),
    ),
    (
        re.compile(r"Document ID is not supported"),
        ItemCause(Scope.INDEX, "This Serverless collection makes the ids itself; see 'Serverless' in docs/load.md."),
    ),
    (re.compile(r"this action would add .* shards"), _SHARDS),
)

_QUEUE_CODES: Final = re.compile(r"rejected_execution_exception|search_backpressure")
# ML Commons passes throttling of AWS on as 400, and a connection to a remote model that broke as 500.
_THROTTLED: Final = re.compile(
    r"remote server throttling|ThrottlingException|TooManyRequestsException|Error communicating with remote model|"
    r"Acquire operation took longer",
    re.IGNORECASE,
)
_TOO_MANY, _UNAVAILABLE, _CONFLICTS = 429, 503, 409


def classify_item(status: int, code: str, reason: str) -> ItemCause:
    """
    Return what an item's error means.

    Seen on OpenSearch 2.19.6 and 3.6.0, which give index-wide errors to each item of an answer with status 200.

    :param status: The item's own HTTP status.
    :param code: ``error.type``.
    :param reason: ``error.reason``, with its cause's.
    """
    if code in _NODE_CODES:
        return _NODE
    if code == "cluster_block_exception":
        if status == _TOO_MANY:
            return _FULL
        return _NODE if status == _UNAVAILABLE else _BLOCKED
    if code in _INDEX_CODES:
        return _INDEX_CODES[code]
    for pattern, cause in _INDEX_REASONS:
        if pattern.search(reason):
            return cause
    if status == _TOO_MANY:
        if _QUEUE_CODES.search(code):
            return _QUEUE
        return _MEMORY if code == "circuit_breaking_exception" else _PIPELINE
    if status == _UNAVAILABLE:
        return _QUEUE if _QUEUE_CODES.search(code) else _NODE
    if _THROTTLED.search(reason) or _THROTTLED.search(code):
        return _PIPELINE
    return _CONFLICT if status == _CONFLICTS else DOCUMENT

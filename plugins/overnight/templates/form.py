"""How a template's trigger form is laid out: the fields that matter in front, the others in folded sections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

FRONT: Final = (
    "input_uri",
    "sources",
    "storage_container",
    "instruction",
    "index_name",
    "model",
    "model_name",
    "chunk_size",
    "allowed_failures",
    "max_cost",
)
"""The fields in front, in this order; a template has five of them or so."""

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Documents": (
        "id_path",
        "text_path",
        "input_filter",
        "on_bad_document",
        "allow_empty",
        "configuration_id",
        "chunk_overlap",
        "allowed_file_failures",
    ),
    "Request": (
        "dimension",
        "output_schema",
        "extract_options",
        "output_type",
        "output_limit",
        "repair",
        "endpoint",
        "request_body",
        "request_options",
        "probe",
        "embedding_deployment_name",
        "completion_action",
        "data_refresh_interval_minutes",
        "region",
        "sagemaker_url",
        "instance_type",
        "instance_count",
        "environment",
    ),
    "Index": (
        "create_index",
        "index_body",
        "field_map",
        "ingest_fields",
        "nested_lists",
        "engine",
        "files_per_load",
        "skip_unchanged",
    ),
    "Documents that are gone": ("sync", "max_deletes", "sync_filter"),
    "Costs and cache": (
        "cache",
        "cache_uri",
        "cache_older_than",
        "prices",
        "approve_above",
        "approval_hours",
        "cost_budget",
        "cost_budget_uri",
        "cleanup",
        "file_hours",
    ),
    "Waiting": (
        "poll_seconds",
        "deadline_hours",
        "queue_hours",
        "budget",
        "parse_budget",
        "batch_requests",
        "resubmit",
        "on_clear",
    ),
    "Folder and connections": (
        "work_uri",
        "openai_conn_id",
        "llamacloud_conn_id",
        "azure_conn_id",
        "opensearch_conn_id",
        "aws_conn_id",
    ),
}
"""By title, the fields of each section. What a template of one's own has beside them is in front."""

_SECTION: Final = {name: title for title, names in SECTIONS.items() for name in names}
_ORDER: Final = {name: number for number, name in enumerate((*FRONT, *_SECTION))}


def lay_out(fields: Mapping[str, dict[str, Any]], own: Iterable[str]) -> dict[str, dict[str, Any]]:
    """
    Return a form's fields in the order and with the sections that they are shown in.

    :param fields: The schema of each; one that has a ``section`` keeps it.
    :param own: Their names, a template's own before those that it shares; it decides among fields that are not listed
        here, which come behind those that are.
    """
    titles = {name: fields[name].get("section", _SECTION.get(name)) for name in own if name in fields}
    sections = list(dict.fromkeys((None, *SECTIONS, *titles.values())))
    names = sorted(titles, key=lambda name: (sections.index(titles[name]), _ORDER.get(name, len(_ORDER))))
    return {name: fields[name] | ({"section": titles[name]} if titles[name] else {}) for name in names}

"""A data stream for a load, with the index template that it is made from."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from overnight.errors import RequestRefusedError
from overnight.ingest.write.names import quote_index_name
from overnight.ingest.write.target import OpenSearchTarget

log = logging.getLogger(__name__)

_TEMPLATE_PRIORITY: Final = 500
"""Of an index template for one name: above those for patterns, which OpenSearch's own examples give 100 and 200."""
_TEMPLATE_EXISTS: Final = re.compile(r"index template \[.*\] already exists")


def create_data_stream(target: OpenSearchTarget, name: str, body: Mapping[str, Any]) -> None:
    """
    Create a data stream, unless it is there, and before it the index template of its name that it is made from.

    https://docs.opensearch.org/latest/im-plugin/data-streams/

    :param body: ``data_stream`` (``{}``, or ``{"timestamp_field": {"name": …}}``); ``settings``, ``mappings`` and
        ``aliases`` of the indices behind it; ``priority`` of the template among those that match the name. A template
        of this name that is there already is used as it is.
    :raises RequestRefusedError: OpenSearch does not take the body.
    """
    quoted = quote_index_name(name)
    template = {key: value for key, value in body.items() if key not in ("data_stream", "priority")}
    try:
        target.put(
            f"_index_template/{quoted}?create=true",
            {
                "index_patterns": [name],
                "data_stream": body["data_stream"] or {},
                "priority": body.get("priority", _TEMPLATE_PRIORITY),
                "template": template,
            },
        )
        log.info("Created the index template %s, which matches this name only.", name)
    except RequestRefusedError as error:
        if not _TEMPLATE_EXISTS.search(str(error)):
            raise
        log.info("The index template %s is there already, and is used as it is.", name)
    try:
        target.put(f"_data_stream/{quoted}", {})
    except RequestRefusedError as error:
        if error.code != "resource_already_exists_exception":
            raise

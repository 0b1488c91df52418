"""Printing as a DAG step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from overnight.hooks.job import JobHook
from overnight.operators.job import JobOperator
from slowprint.hook import PrintHook
from slowprint.service import PrintSpec

if TYPE_CHECKING:
    from airflow.sdk import Context


class PrintOperator(JobOperator[PrintSpec]):
    """
    Print a text.

    :param text_uri: The text.
    :param pages: How many pages it fills.
    """

    template_fields: Sequence[str] = ("text_uri", "pages", *JobOperator.template_fields)
    hook_class: ClassVar[type[JobHook[Any]]] = PrintHook

    def __init__(self, *, text_uri: str, pages: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.text_uri = text_uri
        self.pages = pages

    def build_spec(self, context: Context) -> PrintSpec:
        """Validate the parameters."""
        return PrintSpec(text_uri=self.text_uri, pages=self.pages)

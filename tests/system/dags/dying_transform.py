"""The S3 and SageMaker pipeline as a DAG, each of whose steps loses the worker that runs it first."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from overnight.jobs import JobRecord, RecordStore
from overnight.operators.sagemaker import SageMakerBatchTransformOperator
from overnight.templates import s3_sagemaker_to_index as template

if TYPE_CHECKING:
    from airflow.sdk import Context

MAPPING = Path(__file__).parents[3] / "include" / "mappings" / "documents.json"


def die() -> None:
    """Die as a worker does that is out of memory, or whose machine is gone: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingStore:
    """A record store whose process dies before it writes the reference of a job."""

    def __init__(self, store: RecordStore) -> None:
        self.store = store

    def get(self) -> JobRecord | None:
        return self.store.get()

    def set(self, record: JobRecord) -> None:
        if record.ref is not None:
            die()
        self.store.set(record)


class DiesAfterSubmit(SageMakerBatchTransformOperator):
    """Its first worker dies between the answer to ``CreateTransformJob`` and the record of it."""

    def make_record_store(self, context: Context) -> RecordStore:
        store = super().make_record_store(context)
        return DyingStore(store) if context["ti"].try_number == 1 else store


def die_unnoticed(context: Context, result: Any = None) -> None:
    """Die when all the work is done, before Airflow knows."""
    last = 2 if context["ti"].task_id == "transform" else 1
    if context["ti"].try_number <= last:
        die()


with patch.object(template, "SageMakerBatchTransformOperator", DiesAfterSubmit):
    dag = template.s3_sagemaker_to_index(
        "dying_transform",
        template.S3SageMakerToIndexConfig(
            input_uri="s3://overnight/dying/",
            work_uri="s3://overnight/work",
            index_name="dying",
            model_name="sandbox-embedding",
            dimension=384,
            create_index=True,
            index_body=json.loads(MAPPING.read_text()),
            poll_seconds=0.5,
            files_per_load=2,
            aws_conn_id="aws_dying",
        ),
        default_args={"retries": 3, "retry_delay": timedelta(seconds=0.5), "post_execute": die_unnoticed},
        schedule=None,
    )

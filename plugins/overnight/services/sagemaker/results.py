"""What a transform job wrote: its inputs matched with their outputs, from what S3 lists."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from overnight.errors import shorten
from overnight.jobs import JobCounts, JobRef, ResultFile, ResultManifest
from overnight.services.sagemaker.locations import bucket_and_key, to_s3_uri
from overnight.services.sagemaker.objects import find_inputs, list_objects
from overnight.transport.flow import Flow

SUFFIX: Final = ".out"
"""Of an output's name, behind its input's."""


@dataclass(frozen=True)
class TransformOutputs:
    """
    What came of a job's inputs.

    :param outputs: Pairs of an input and its output, in the order of the inputs.
    :param missing: The inputs without one.
    """

    prefix: str
    outputs: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many inputs there were."""
        return len(self.outputs) + len(self.missing)

    @property
    def counts(self) -> JobCounts:
        """The inputs, as a job's items."""
        return JobCounts(total=self.total, succeeded=len(self.outputs), failed=len(self.missing))


def find_outputs(job: Mapping[str, Any]) -> Flow[TransformOutputs]:
    """
    Match a finished job's inputs with their outputs.

    SageMaker writes ``<input>.out`` only when all of an input went well. An output from before the job was created is
    an earlier job's, and an input that arrived after its start is a later one's.

    :param job: What DescribeTransformJob answered.
    """
    source = job["TransformInput"]["DataSource"]["S3DataSource"]
    inputs = yield from find_inputs(source["S3DataType"], source["S3Uri"], listed=False)
    folder = to_s3_uri(job["TransformOutput"]["S3OutputPath"]).rstrip("/") + "/"
    # S3 tells times in whole seconds.
    created = job["CreationTime"].replace(microsecond=0)
    written = {
        item.uri for item in (yield from list_objects(folder)) if item.uri.endswith(SUFFIX) and item.modified >= created
    }
    outputs = match_outputs(inputs.prefix, inputs.uris, folder, written)
    started = job.get("TransformStartTime") or job["CreationTime"]
    missing = [
        uri
        for uri in inputs.uris
        if uri not in outputs and (uri not in inputs.listed or inputs.listed[uri].modified <= started)
    ]
    return TransformOutputs(inputs.prefix, tuple(outputs.items()), tuple(missing))


def match_outputs(prefix: str, uris: Sequence[str], folder: str, written: Container[str]) -> dict[str, str]:
    """
    Return the output of each input that has one, in the order of the inputs; no two have the same.

    :param prefix: What the inputs lie below.
    :param folder: The output's, with its final slash.
    :param written: The objects below it.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    # What is the likeliest place of one input may be an unlikely one of another.
    for names in zip(*(output_names(prefix, uri, folder) for uri in uris), strict=True):
        for uri, name in zip(uris, names, strict=True):
            if uri not in found and name in written and name not in taken:
                found[uri] = name
                taken.add(name)
    return {uri: found[uri] for uri in uris if uri in found}


def output_names(prefix: str, uri: str, folder: str) -> Iterator[str]:
    """
    Yield where an input's output may be, the likeliest first.

    The reference says "in a corresponding subfolder": below the output folder, an output lies as its input lies below
    the input prefix. A prefix that ends within a name counts from the last slash.
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TransformOutput.html

    :param folder: The output's, with its final slash.
    """
    yield folder + relative(prefix, uri) + SUFFIX
    # A key may hold empty names ('a//b'), which a server may write as it reads them, or leave out.
    yield folder + "/".join(name for name in relative(prefix, uri).split("/") if name) + SUFFIX
    yield folder + uri[prefix.rfind("/") + 1 :] + SUFFIX
    yield folder + bucket_and_key(uri)[1] + SUFFIX


def relative(prefix: str, uri: str) -> str:
    """Return an input's place below its prefix."""
    rest = uri.removeprefix(prefix)
    if rest and prefix.endswith("/"):
        return rest
    if rest.startswith("/"):
        return rest[1:]
    return uri[prefix.rfind("/") + 1 :]


def build_result_manifest(ref: JobRef, job: Mapping[str, Any], made: TransformOutputs) -> ResultManifest:
    """Name the outputs, their inputs in the same order, and as ``missing`` the inputs without one."""
    files = [
        *(ResultFile(kind="output", uri=output) for _, output in made.outputs),
        *(ResultFile(kind="input", uri=source) for source, _ in made.outputs),
        *(ResultFile(kind="missing", uri=uri) for uri in made.missing),
    ]
    detail = {
        "status": job.get("TransformJobStatus"),
        "arn": job.get("TransformJobArn"),
        "model": job.get("ModelName"),
        "input_prefix": made.prefix[: made.prefix.rfind("/") + 1],
        "output_uri": job["TransformOutput"]["S3OutputPath"],
        "failure_reason": shorten(job.get("FailureReason") or ""),
        "seconds": _measure(job),
    }
    return ResultManifest(
        ref=ref,
        files=tuple(files),
        counts=made.counts,
        detail={name: value for name, value in detail.items() if value},
    )


def _measure(job: Mapping[str, Any]) -> float | None:
    """Return for how many seconds a job ran, where its times say so."""
    began, ended = job.get("TransformStartTime"), job.get("TransformEndTime")
    if not isinstance(began, datetime) or not isinstance(ended, datetime):
        return None
    return round((ended - began).total_seconds(), 3)

"""Which objects a transform job reads and which it wrote, from what S3 lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from overnight.errors import UnavailableError
from overnight.services.sagemaker.answers import list_object_pages
from overnight.services.sagemaker.spec import read_manifest
from overnight.transport.aws import AwsCall
from overnight.transport.flow import Flow

SUFFIX = ".out"


@dataclass(frozen=True)
class S3Object:
    """One object of a listing."""

    uri: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Inputs:
    """
    What a job reads.

    :param prefix: What the outputs' names are relative to: the prefix that was asked for, or a manifest's.
    :param uris: In the order of the listing or the manifest.
    :param listed: What S3 says of them, by URI. A manifest's objects that are not there are missing in it.
    """

    prefix: str
    uris: tuple[str, ...]
    listed: Mapping[str, S3Object] = field(default_factory=dict)


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


def list_objects(prefix: str) -> Flow[list[S3Object]]:
    """List everything whose key begins with a prefix, without the empty objects that consoles make for folders."""
    bucket, key = bucket_and_key(prefix)
    following: Mapping[str, Any] | None = {"Bucket": bucket, "Prefix": key}
    found: list[S3Object] = []
    while following is not None:
        items, following = yield from list_object_pages(following)
        found += [
            S3Object(f"s3://{bucket}/{item['Key']}", item["Size"], item["LastModified"])
            for item in items
            if not item["Key"].endswith("/")
        ]
    return found


def find_inputs(kind: str, uri: str, *, listed: bool = True) -> Flow[Inputs]:
    """
    Find what a job with this data source reads.

    :param listed: Whether to ask S3 about a manifest's objects, too.
    :raises SpecError: the manifest cannot be read.
    """
    if kind == "ManifestFile":
        bucket, key = bucket_and_key(uri)
        answer = yield AwsCall("GetObject", {"Bucket": bucket, "Key": key}, "s3")
        body = answer.get("Body") if isinstance(answer, dict) else None
        if not isinstance(body, bytes):
            raise UnavailableError(f"s3 GetObject: the answer about {uri} has no body.")
        prefix, uris = read_manifest(uri, body)
        objects = (yield from list_objects(prefix)) if listed else []
    else:
        prefix = uri
        objects = yield from list_objects(uri)
        uris = [item.uri for item in objects]
    there = {item.uri: item for item in objects}
    return Inputs(prefix, tuple(uris), {name: there[name] for name in uris if name in there})


def find_outputs(job: Mapping[str, Any]) -> Flow[TransformOutputs]:
    """
    Match a finished job's inputs with their outputs.

    SageMaker writes ``<input>.out`` only when all of an input went well. An output from before the job was created is
    an earlier job's, and an input that arrived after its start is a later one's.

    :param job: What DescribeTransformJob answered.
    """
    source = job["TransformInput"]["DataSource"]["S3DataSource"]
    inputs = yield from find_inputs(source["S3DataType"], source["S3Uri"], listed=False)
    folder = job["TransformOutput"]["S3OutputPath"].rstrip("/") + "/"
    # S3 tells times in whole seconds.
    created = job["CreationTime"].replace(microsecond=0)
    written = {
        item.uri for item in (yield from list_objects(folder)) if item.uri.endswith(SUFFIX) and item.modified >= created
    }
    outputs: list[tuple[str, str]] = []
    missing: list[str] = []
    started = job.get("TransformStartTime") or job["CreationTime"]
    for uri in inputs.uris:
        output = next((name for name in output_names(inputs.prefix, uri, folder) if name in written), None)
        if output is not None:
            outputs.append((uri, output))
        elif uri not in inputs.listed or inputs.listed[uri].modified <= started:
            missing.append(uri)
    return TransformOutputs(inputs.prefix, tuple(outputs), tuple(missing))


def output_names(prefix: str, uri: str, folder: str) -> Iterator[str]:
    """
    Yield where an input's output may be, the likeliest first.

    The reference says "in a corresponding subfolder": below the output folder, an output lies as its input lies below
    the input prefix. A prefix that ends within a name counts from the last slash.
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TransformOutput.html

    :param folder: The output's, with its final slash.
    """
    yield folder + relative(prefix, uri) + SUFFIX
    yield folder + uri[prefix.rfind("/") + 1 :] + SUFFIX
    yield folder + bucket_and_key(uri)[1] + SUFFIX


def relative(prefix: str, uri: str) -> str:
    """Return an input's place below its prefix."""
    rest = uri.removeprefix(prefix)
    if rest and (prefix.endswith("/") or rest.startswith("/")):
        return rest.lstrip("/")
    return uri[prefix.rfind("/") + 1 :]


def too_large(inputs: Inputs, limit: int) -> Sequence[S3Object]:
    """Return the inputs that are larger than one payload."""
    return [item for item in inputs.listed.values() if item.size > limit]


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Take an ``s3://`` URI apart."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key

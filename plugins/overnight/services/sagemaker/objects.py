"""Which objects a transform job reads, from what S3 lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from overnight.errors import UnavailableError
from overnight.services.sagemaker.answers import list_object_pages
from overnight.services.sagemaker.locations import bucket_and_key, to_s3_uri
from overnight.services.sagemaker.spec import read_manifest
from overnight.storage import is_ignored
from overnight.transport.aws_call import S3, AwsCall
from overnight.transport.flow import Flow


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
    :param ignored: How many objects below a prefix are no input.
    """

    prefix: str
    uris: tuple[str, ...]
    listed: Mapping[str, S3Object] = field(default_factory=dict)
    ignored: int = 0


def list_objects(prefix: str) -> Flow[list[S3Object]]:
    """List everything whose key begins with a prefix."""
    bucket, key = bucket_and_key(prefix)
    following: Mapping[str, Any] | None = {"Bucket": bucket, "Prefix": key}
    found: list[S3Object] = []
    while following is not None:
        items, following = yield from list_object_pages(following)
        found += [S3Object(f"s3://{bucket}/{item['Key']}", item["Size"], item["LastModified"]) for item in items]
    return found


def is_input(prefix: str, uri: str) -> bool:
    """
    Whether an object whose key begins with a prefix is an input: what :func:`~overnight.storage.is_ignored` leaves out
    is none. What the prefix says itself is asked for.
    """
    rest = uri.removeprefix(prefix)
    if not prefix.endswith("/"):
        # The prefix ends within a name, which the rest begins with.
        _, slash, rest = rest.partition("/")
        if not slash:
            return True
    return not is_ignored(rest)


def find_inputs(kind: str, uri: str, *, listed: bool = True) -> Flow[Inputs]:
    """
    Find what a job with this data source reads.

    :param listed: Whether to ask S3 about a manifest's objects, too.
    :raises SpecError: the manifest cannot be read.
    """
    if kind == "ManifestFile":
        bucket, key = bucket_and_key(uri)
        answer = yield AwsCall(S3, "GetObject", {"Bucket": bucket, "Key": key})
        body = answer.get("Body") if isinstance(answer, dict) else None
        if not isinstance(body, bytes):
            raise UnavailableError(f"s3 GetObject: the answer about {uri} has no body.")
        prefix, uris = read_manifest(uri, body)
        objects = (yield from list_objects(prefix)) if listed else []
        found = objects
    else:
        prefix = to_s3_uri(uri)
        found = yield from list_objects(prefix)
        objects = [item for item in found if is_input(prefix, item.uri)]
        uris = [item.uri for item in objects]
    there = {item.uri: item for item in objects}
    listing = {name: there[name] for name in uris if name in there}
    return Inputs(prefix, tuple(uris), listing, ignored=len(found) - len(objects))


def too_large(inputs: Inputs, limit: int) -> Sequence[S3Object]:
    """Return the inputs that are larger than one payload."""
    return [item for item in inputs.listed.values() if item.size > limit]

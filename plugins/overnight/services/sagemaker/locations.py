"""Where objects are: ``s3://`` URIs, and S3's web addresses, which SageMaker takes as well."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import unquote

from pydantic import AfterValidator, Field

from overnight.errors import SpecError, shorten

_S3: Final = re.compile(r"s3://[^/]+(/.*)?", re.DOTALL)
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
_WEB: Final = re.compile(
    r"https://(?:(?P<bucket>[a-z0-9][a-z0-9.-]*)\.)?s3(?:[.-](?:dualstack\.)?[a-z]{2}(?:-[a-z]+)+-\d)?"
    r"\.amazonaws\.com(?:\.cn)?(?:/(?P<path>.*))?",
    re.DOTALL,
)


def is_s3_uri(uri: str) -> bool:
    """Whether it is an ``s3://`` URI with a bucket."""
    return _S3.fullmatch(uri) is not None


def to_s3_uri(uri: str) -> str:
    """
    Return a location as ``s3://bucket/key``; an ``s3://`` URI is returned as it is.

    :param uri: Also a web address of S3, ``https://bucket.s3.region.amazonaws.com/key`` or
        ``https://s3.region.amazonaws.com/bucket/key``, whose ``%20`` and the like are decoded.
    :raises SpecError: it is neither.
    """
    # Not a URL parser's business: a question mark is a letter like any other in a key.
    if is_s3_uri(uri):
        return uri
    found = _WEB.fullmatch(uri)
    path = unquote(found["path"] or "") if found is not None else ""
    location = f"{found['bucket']}/{path}" if found is not None and found["bucket"] else path
    if not location.partition("/")[0]:
        raise SpecError(f"{shorten(repr(uri))} is not s3://bucket/key, and not a web address of S3.")
    return f"s3://{location}"


def bucket_and_key(uri: str) -> tuple[str, str]:
    """
    Take a location apart.

    :raises SpecError: see :func:`to_s3_uri`.
    """
    bucket, _, key = to_s3_uri(uri).removeprefix("s3://").partition("/")
    return bucket, key


S3Uri = Annotated[str, Field(max_length=1024), AfterValidator(to_s3_uri)]

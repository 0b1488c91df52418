from __future__ import annotations

import pytest

from overnight.errors import SpecError
from overnight.services.ml_commons.ingest.credential import OpenAICredential, S3Credential, on_the_wire
from overnight.transport.opensearch import ServerVersion


def _version(number: str, distribution: str = "opensearch") -> ServerVersion:
    return ServerVersion(distribution, number)


KEYS = S3Credential("ak", "sk", "eu-west-1")
TEMPORARY = S3Credential("ak", "sk", "eu-west-1", "token")


@pytest.mark.parametrize(
    ("number", "credential", "fields"),
    [
        ("2.17.0", KEYS, {"region": "eu-west-1"}),
        ("2.18.0", TEMPORARY, {"region": "eu-west-1", "session_token": "token"}),
        ("2.19.0", KEYS, {"session_token": "eu-west-1"}),
        ("2.19.6", TEMPORARY, {"session_token": "eu-west-1", "region": "token"}),
    ],
)
def test_region_and_token_are_where_the_version_reads_them(
    number: str, credential: S3Credential, fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    wire = on_the_wire(credential, _version(number))
    assert wire == {"access_key": "ak", "secret_key": "sk", **fields}
    assert ("swaps" in caplog.text) == number.startswith("2.19")
    assert "token" not in caplog.text.replace("session_token", "").replace("the token as", "")


def test_a_region_that_cannot_be_is_refused_and_secrets_are_not_shown() -> None:
    with pytest.raises(SpecError, match="region_name"):
        on_the_wire(S3Credential("ak", "sk", "somewhere"), _version("2.19.6"))
    assert on_the_wire(OpenAICredential("k"), _version("2.19.6")) == {"openAI_key": "k"}
    assert "sk" not in repr(TEMPORARY)
    assert "k'" not in repr(OpenAICredential("k"))

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from overnight.errors import SpecError
from overnight.jobs import compute_fingerprint
from overnight.services.sagemaker.spec import (
    Experiment,
    SageMakerTransformSpec,
    read_manifest,
    tag_text,
    write_manifest,
)

PLAIN = {
    "model_name": "embed",
    "input_uri": "s3://corpus/in/",
    "output_uri": "s3://corpus/out/",
    "instance_type": "ml.m5.large",
}
LINES = {
    **PLAIN,
    "content_type": "application/jsonlines",
    "accept": "application/jsonlines",
    "split_type": "Line",
    "assemble_with": "Line",
}
# The connector blueprint of ML Commons for SageMaker submits this.
BLUEPRINT = {
    **PLAIN,
    "content_type": "application/json",
    "accept": "application/json",
    "split_type": "Line",
    "assemble_with": "Line",
    "strategy": "SingleRecord",
    "input_filter": "$.content",
    "join_source": "Input",
    "output_filter": "$",
}


def spec(**fields: Any) -> SageMakerTransformSpec:
    return SageMakerTransformSpec.model_validate(fields)


@pytest.mark.parametrize(
    "fields",
    [
        PLAIN,
        LINES,
        BLUEPRINT,
        {**LINES, "strategy": "MultiRecord", "max_payload_mb": 10, "max_concurrent_transforms": 10},
        {**LINES, "max_concurrent_transforms": 16},
        {**LINES, "content_type": "application/x-jsonlines; charset=utf-8", "join_source": "Input"},
        {**LINES, "content_type": "text/csv", "accept": "text/csv", "join_source": "Input", "output_filter": "$[0,5:]"},
        {**PLAIN, "content_type": "image/jpeg", "accept": "image/png", "strategy": "SingleRecord"},
        {**PLAIN, "content_type": "application/json", "accept": "application/json", "join_source": "Input"},
        {**PLAIN, "split_type": "Line", "accept": "application/x-recordio-protobuf"},
        {**PLAIN, "split_type": "None", "compression": "None", "assemble_with": "None", "join_source": "None"},
        {**PLAIN, "input_uri": "s3://corpus/in", "output_uri": "s3://corpus/out"},
        {**PLAIN, "input_uri": "s3://corpus/out/x.manifest", "input_kind": "ManifestFile"},
        {**PLAIN, "max_payload_mb": 0, "max_concurrent_transforms": 50},
    ],
)
def test_what_sagemaker_takes_is_taken(fields: dict[str, Any]) -> None:
    assert spec(**fields).model_name == "embed"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**PLAIN, "model_name": "under_score"}, "model_name"),
        ({**PLAIN, "instance_type": "m5.large"}, "instance_type"),
        ({**PLAIN, "input_uri": "https://corpus/in/"}, "is not s3://bucket/key"),
        ({**PLAIN, "strategy": "MultiRecord"}, "needs a split_type"),
        ({**PLAIN, "max_payload_mb": 101}, "max_payload_mb"),
        ({**LINES, "max_concurrent_transforms": 17}, r"\(6, the default\) must not be over 100 MB"),
        ({**LINES, "max_concurrent_transforms": 6, "max_payload_mb": 20}, r"\(20\) must not be over 100 MB"),
        ({**LINES, "split_type": None}, "JSON Lines input needs split_type='Line'"),
        ({**LINES, "assemble_with": None}, "needs assemble_with='Line'"),
        ({**PLAIN, "accept": "application/jsonlines"}, "JSON Lines output needs assemble_with='Line'"),
        ({**BLUEPRINT, "strategy": None}, "need strategy='SingleRecord'"),
        ({**BLUEPRINT, "strategy": "MultiRecord"}, "need strategy='SingleRecord'"),
        ({**BLUEPRINT, "accept": None}, "both CSV or both JSON"),
        ({**BLUEPRINT, "accept": "text/csv"}, "both CSV or both JSON"),
        ({**LINES, "join_source": "Input", "content_type": "image/png"}, "both CSV or both JSON"),
        (
            {**PLAIN, "content_type": "text/csv", "accept": "text/csv", "join_source": "Input"},
            "join_source='Input' needs split_type='Line' and assemble_with='Line'",
        ),
        ({**PLAIN, "input_filter": "$.content"}, "input_filter needs content_type CSV or JSON"),
        ({**PLAIN, "content_type": "text/csv", "output_filter": "$[0]"}, "output_filter needs accept CSV or JSON"),
        ({**LINES, "content_type": "text/csv", "input_filter": "$.id"}, "the columns of CSV have no names"),
        ({**LINES, "input_filter": "$..content"}, "not a filter that SageMaker takes"),
        ({**PLAIN, "output_uri": "s3://corpus/in/"}, "would read this one's output"),
        ({**PLAIN, "output_uri": "s3://corpus/in/out/"}, "would read this one's output"),
        ({**PLAIN, "input_uri": "s3://corpus/in", "output_uri": "s3://corpus/in-out"}, "would read this one's output"),
        ({**PLAIN, "input_uri": "s3://corpus"}, "would read this one's output"),
        ({**PLAIN, "output_uri": "s3://corpus/"}, "contains the input"),
        ({**PLAIN, "input_kind": "ManifestFile"}, "a manifest is one object"),
        ({**PLAIN, "environment": {"1": "x"}}, "environment"),
        ({**PLAIN, "environment": {f"V{number}": "" for number in range(17)}}, "environment"),
        ({**PLAIN, "tags": {f"t{number}": "" for number in range(47)}}, "There are 47 tags"),
        ({**PLAIN, "tags": {"overnight:dag": "mine"}}, "reserved"),
        ({**PLAIN, "tags": {"AWS:x": "mine"}}, "reserved"),
        ({**PLAIN, "tags": {"x" * 129: "y"}}, "too long"),
        ({**PLAIN, "tags": {"team": "a;b"}}, "may hold letters"),
        ({**PLAIN, "mistyped": 1}, "mistyped"),
    ],
)
def test_what_sagemaker_would_refuse_or_mangle_is_refused_with_its_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**fields)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ValidationError) as error:
        spec(**{**PLAIN, "strategy": "MultiRecord", "output_uri": "s3://corpus/in/x", "input_filter": "id"})
    for message in ("needs a split_type", "would read this one's output", "has to begin with $"):
        assert message in str(error.value)


def test_the_request_has_what_was_given_and_the_defaults_that_matter() -> None:
    request = spec(
        **BLUEPRINT,
        max_payload_mb=4,
        environment={"A": "b"},
        invocation_timeout=60,
        output_kms_key="alias/out",
        tags={"team": "search"},
        experiment=Experiment(name="nightly"),
    ).request("job-1", {"overnight:dag": "d"})
    assert request == {
        "TransformJobName": "job-1",
        "ModelName": "embed",
        "BatchStrategy": "SingleRecord",
        "MaxPayloadInMB": 4,
        "Environment": {"A": "b"},
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 60},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://corpus/in/"}},
            "ContentType": "application/json",
            "SplitType": "Line",
            "CompressionType": "None",
        },
        "TransformOutput": {
            "S3OutputPath": "s3://corpus/out/",
            "Accept": "application/json",
            "AssembleWith": "Line",
            "KmsKeyId": "alias/out",
        },
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "DataProcessing": {"InputFilter": "$.content", "OutputFilter": "$", "JoinSource": "Input"},
        "ExperimentConfig": {"ExperimentName": "nightly"},
        "Tags": [{"Key": "team", "Value": "search"}, {"Key": "overnight:dag", "Value": "d"}],
    }


def test_a_plain_spec_asks_for_nothing_more() -> None:
    request = spec(**PLAIN).request("job-1", {})
    assert request.keys() == {
        "TransformJobName",
        "ModelName",
        "TransformInput",
        "TransformOutput",
        "TransformResources",
        "Tags",
    }


def test_the_fingerprint_follows_the_work_and_the_account() -> None:
    one = spec(**PLAIN)
    assert one.fingerprint("a") == spec(**PLAIN, split_type="None").fingerprint("a")
    assert one.fingerprint("a") != one.fingerprint("b")
    assert one.fingerprint("a") != spec(**{**PLAIN, "model_name": "other"}).fingerprint("a")


def test_payloads_have_six_megabytes_unless_said_otherwise() -> None:
    assert spec(**PLAIN).payload_bytes == 6 << 20
    assert spec(**PLAIN, max_payload_mb=100).payload_bytes == 100 << 20
    assert spec(**PLAIN, max_payload_mb=0).payload_bytes is None


def test_tags_keep_letters_of_every_script() -> None:
    assert tag_text("scheduled__2026-11-23T00:00:00+00:00") == "scheduled__2026-11-23T00:00:00+00:00"
    assert tag_text("täglich[3];x") == "täglich_3__x"
    assert len(tag_text("x" * 300)) == 256


def local(folder: Path) -> str:
    return str(folder / "manifests")


def test_a_manifest_lists_objects_below_the_folder_they_share(tmp_path: Path) -> None:
    uris = ["s3://corpus/in/b.jsonl", "s3://corpus/in/deep/a.jsonl", "s3://corpus/in/b.jsonl"]
    written = write_manifest(uris, local(tmp_path))
    body = Path(written).read_bytes()
    assert orjson.loads(body) == [{"prefix": "s3://corpus/in/"}, "b.jsonl", "deep/a.jsonl"]
    assert read_manifest(written, body) == ("s3://corpus/in/", sorted(set(uris)))


def test_the_same_objects_have_the_same_manifest_in_any_order(tmp_path: Path) -> None:
    uris = [f"s3://corpus/in/{name}" for name in "abc"]
    assert write_manifest(uris, local(tmp_path)) == write_manifest(uris[::-1], local(tmp_path) + "/")
    assert write_manifest(uris[:2], local(tmp_path)) != write_manifest(uris, local(tmp_path))


def test_a_given_prefix_keeps_the_places_of_the_outputs(tmp_path: Path) -> None:
    written = write_manifest(["s3://corpus/in/deep/a.jsonl"], local(tmp_path), prefix="s3://corpus/in/")
    assert orjson.loads(Path(written).read_bytes()) == [{"prefix": "s3://corpus/in/"}, "deep/a.jsonl"]


@pytest.mark.parametrize(
    ("uris", "prefix", "message"),
    [
        ([], None, "the list of objects is empty"),
        (["s3://one/a", "s3://two/a"], None, "share one s3:// folder"),
        (["/tmp/a"], None, "is not s3://bucket/key"),
        (["s3://corpus/in/a"], "s3://corpus/in", "share one s3:// folder"),
        (["s3://corpus/in/a", "s3://corpus/a"], "s3://corpus/in/", "does not lie below"),
        (["s3://corpus/in/"], "s3://corpus/in/", "does not lie below"),
    ],
)
def test_objects_that_one_manifest_cannot_name_are_refused(
    tmp_path: Path, uris: list[str], prefix: str | None, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        write_manifest(uris, local(tmp_path), prefix=prefix)
    assert not (tmp_path / "manifests").exists()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'["a"]', b'[{"prefix": "s3://b/"}]', b'[{"prefix": "s3://b/"}, 1]', b'[{"prefix": 1}]']
)
def test_what_is_no_manifest_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(SpecError, match="is not a manifest"):
        read_manifest("s3://b/m", body)


_KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda key: not key.startswith("/") and not key.endswith("/")
)


@given(keys=st.lists(_KEYS, min_size=1, max_size=8, unique=True))
def test_a_manifest_gives_back_the_objects_it_was_made_of(keys: list[str], tmp_path_factory: Any) -> None:
    uris = [f"s3://corpus/{key}" for key in keys]
    written = write_manifest(uris, str(tmp_path_factory.getbasetemp() / "given"))
    prefix, found = read_manifest(written, Path(written).read_bytes())
    assert found == sorted(uris)
    assert prefix.endswith("/")


def test_the_machine_image_and_the_data_capture_are_sent() -> None:
    capture = {"uri": "s3://corpus/capture", "kms_key": "k", "inference_id": True}
    request = spec(**PLAIN, ami_version="al2-ami-sagemaker-batch-gpu-470", data_capture=capture).request("n", {})
    assert request["TransformResources"]["TransformAmiVersion"] == "al2-ami-sagemaker-batch-gpu-470"
    assert request["DataCaptureConfig"] == {
        "DestinationS3Uri": "s3://corpus/capture",
        "KmsKeyId": "k",
        "GenerateInferenceId": True,
    }
    plain = spec(**PLAIN).request("n", {})
    assert "DataCaptureConfig" not in plain
    assert "TransformAmiVersion" not in plain["TransformResources"]


def test_fields_that_came_later_leave_the_digest_of_running_jobs() -> None:
    # As version 1 computed it.
    fields = spec(**PLAIN).model_dump(mode="json", exclude={"ami_version", "data_capture"})
    assert spec(**PLAIN).fingerprint("c") == compute_fingerprint({"spec": fields, "conn_id": "c"})
    assert spec(**PLAIN, ami_version="al2").fingerprint("c") != spec(**PLAIN).fingerprint("c")


def test_a_web_address_of_s3_is_the_same_location() -> None:
    web = "https://corpus.s3.eu-west-1.amazonaws.com"
    assert spec(**{**PLAIN, "input_uri": f"{web}/in/", "output_uri": f"{web}/out/"}) == spec(**PLAIN)

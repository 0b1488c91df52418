from __future__ import annotations

import boto3
import httpx

from patience import PATIENCE


def test_a_vector_that_was_indexed_is_found_by_its_neighbour(opensearch_url: str, index_name: str) -> None:
    vector = {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene"}}
    with httpx.Client(base_url=opensearch_url, timeout=PATIENCE) as client:
        body = {"settings": {"index.knn": True}, "mappings": {"properties": {"v": vector}}}
        client.put(f"/{index_name}", json=body).raise_for_status()
        for name, value in {"near": [1.0, 0.1], "far": [-1.0, 5.0]}.items():
            answer = client.put(f"/{index_name}/_doc/{name}", params={"refresh": "true"}, json={"v": value})
            answer.raise_for_status()
        query = {"size": 1, "query": {"knn": {"v": {"vector": [1.0, 0.0], "k": 1}}}}
        hits = client.post(f"/{index_name}/_search", json=query).raise_for_status().json()["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == ["near"]


def test_text_is_analysed_and_scripts_run(opensearch_url: str, index_name: str) -> None:
    # Thai is what a Java without its locales breaks on; the script is what painless is there for.
    text = {"type": "text", "analyzer": "thai"}
    with httpx.Client(base_url=opensearch_url, timeout=PATIENCE) as client:
        client.put(f"/{index_name}", json={"mappings": {"properties": {"t": text}}}).raise_for_status()
        document = f"/{index_name}/_doc/1"
        client.put(document, json={"t": "ภาษาไทย", "n": 1}).raise_for_status()
        client.post(f"/{index_name}/_update/1", json={"script": "ctx._source.n += 1"}).raise_for_status()
        assert client.get(document).json()["_source"]["n"] == 2
        client.post(f"/{index_name}/_refresh").raise_for_status()
        found = client.post(f"/{index_name}/_search", json={"query": {"match": {"t": "ไทย"}}}).json()
    assert found["hits"]["total"]["value"] == 1


def test_an_object_is_read_back_in_part(s3_endpoint: str) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
    )
    s3.create_bucket(Bucket="corpus")
    s3.put_object(Bucket="corpus", Key="a.jsonl", Body=b'{"id": 1}\n{"id": 2}\n')
    part = s3.get_object(Bucket="corpus", Key="a.jsonl", Range="bytes=10-")["Body"].read()
    assert part == b'{"id": 2}\n'

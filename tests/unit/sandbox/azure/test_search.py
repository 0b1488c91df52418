from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def full(azure: Any) -> Any:
    azure.blob("whales.txt", "the blue whale eats krill")
    azure.blob("birds.txt", "the blue tit eats seeds and seeds")
    azure.blob("rockets.txt", 'rockets AND "moons" NEAR(x)')
    azure.put()
    azure.over()
    return azure


def titles(answer: dict[str, Any]) -> set[str]:
    return {row["title"] for row in answer["value"]}


def test_any_word_or_all_words_are_searched(full: Any) -> None:
    assert titles(full.search("blue krill")) == {"whales.txt", "birds.txt"}
    assert full.search("blue krill")["value"][0]["title"] == "whales.txt"
    assert titles(full.search("blue krill", searchMode="all")) == {"whales.txt"}


def test_a_star_or_nothing_is_everything(full: Any) -> None:
    assert full.search("*", count=True)["@odata.count"] == 3
    assert len(full.search("", top=2)["value"]) == 2
    assert len(full.search("*", skip=2)["value"]) == 1


def test_words_are_never_operators(full: Any) -> None:
    assert titles(full.search('AND "NEAR(')) == {"rockets.txt", "birds.txt"}
    assert full.search("?!")["value"] == []


def test_fields_can_be_selected(full: Any) -> None:
    assert set(full.search("krill", select="id,title")["value"][0]) == {"@search.score", "id", "title"}
    row = full.search("krill")["value"][0]
    found = full.client.get(f"/indexes/job/docs/{row['id']}").json()
    assert found == {name: value for name, value in row.items() if name != "@search.score"}


@pytest.mark.parametrize(
    "body",
    [
        {"filter": "x eq 1"},
        {"top": -1},
        {"top": 1_001},
        {"skip": "1"},
        {"select": "nope"},
        {"queryType": "semantic"},
        [],
    ],
)
def test_what_is_not_known_is_refused(full: Any, body: Any) -> None:
    answer = full.client.post("/indexes/job/docs/search", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_an_index_is_listed_described_and_deleted(full: Any) -> None:
    assert [index["name"] for index in full.client.get("/indexes").json()["value"]] == ["job"]
    assert "content" in [field["name"] for field in full.client.get("/indexes/job").json()["fields"]]
    assert full.client.delete("/indexes/job").status_code == 204
    for path in ("/indexes/job", "/indexes/job/docs/$count", "/indexes/job/docs/x"):
        assert full.client.get(path).status_code == 404


def test_the_admin_key_and_a_version_are_wanted(full: Any) -> None:
    assert full.client.get("/indexes", headers={"api-key": "wrong"}).status_code == 403
    assert full.client.get("/indexes", params={"api-version": ""}).status_code == 400

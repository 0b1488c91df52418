"""What ``overnight estimate`` says and exits with; it asks no service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from overnight.cli.app import app


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["estimate", *map(str, arguments)])


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.jsonl"
    path.parent.mkdir()
    path.write_text("".join(f'{{"id":"d{n}","text":"{"word " * 40}"}}\n' for n in range(5)))
    return path


def test_the_lines_are_those_of_prepare_and_nothing_is_left_behind(documents: Path) -> None:
    found = run(documents)
    assert found.exit_code == 0
    lines = dict(line.split(": ", 1) for line in found.stdout.splitlines())
    assert (lines["requests"], lines["parts"], lines["model"]) == ("5", "1", "text-embedding-3-small")
    assert lines["price"].endswith(" USD")
    assert [path.name for path in documents.parent.iterdir()] == ["a.jsonl"]


def test_as_json_it_can_be_read_by_a_program(documents: Path) -> None:
    found = run(f"{documents.parent}/", "--json", "--prices", '{"models": {"m": {"input": 1000000}}}', "--model", "m")
    assert found.exit_code == 0
    said = json.loads(found.stdout)
    assert said["requests"] == 5
    assert float(said["cost"]) == said["input"] / 2


def test_a_template_may_be_a_file(documents: Path, tmp_path: Path) -> None:
    body = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "${$.text}"}]}
    path = tmp_path / "template.json"
    path.write_text(json.dumps({"endpoint": "/v1/chat/completions", "body": body, "id_path": "$.id"}))
    found = run(documents, "--template", path)
    assert "output: at most 50 tokens" in found.stdout, found.output
    path.write_text("{")
    assert run(documents, "--template", path).exit_code == 2
    assert run(documents, "--template", tmp_path / "none.json").exit_code == 2


@pytest.mark.parametrize(
    ("limit", "status"), [("1 USD", 0), ("100000 tokens", 0), ("0.000001 USD", 1), ("10 tokens", 1)]
)
def test_above_a_limit_it_says_so_by_its_exit_status(documents: Path, limit: str, status: int) -> None:
    assert run(documents, "--max-cost", limit).exit_code == status


def test_a_price_that_is_not_known_is_above_a_limit(documents: Path) -> None:
    assert run(documents, "--model", "mine").exit_code == 0
    found = run(documents, "--model", "mine", "--max-cost", "5 USD")
    assert found.exit_code == 1
    assert "no price of the model 'mine' is known" in found.output


@pytest.mark.parametrize("content", ["", '{"id": 1}\n', "[]\n", '{"id":"a","text":"x"}\n{"id":"a","text":"x"}\n'])
def test_what_could_not_be_sent_is_refused_without_a_traceback(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    found = run(path)
    assert found.exit_code == 2
    assert found.output.startswith("Refused: ")
    assert "Traceback" not in found.output


def test_no_file_is_named(tmp_path: Path) -> None:
    found = run(f"{tmp_path}/*.jsonl")
    assert found.exit_code == 2
    assert "No file matches" in found.output

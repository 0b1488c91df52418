from __future__ import annotations

from pathlib import Path

import pytest

from overnight.sandbox.azure import Settings
from overnight.sandbox.azure.draws import Draws
from overnight.sandbox.emulator.sections import SectionError, Sections


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def draws() -> Draws:
    return Draws(0)


@pytest.fixture
def sections(settings: Settings, draws: Draws) -> Sections:
    return Sections(settings, draws, ("faults", "pace"), beside=("clock",))


def test_a_section_is_replaced_or_changed_in_part(settings: Settings, sections: Sections) -> None:
    assert sections.replace("pace", {"queued": 3})["queued"] == 3.0
    assert sections.merge("pace", {"chunks_per_second": 2}) == sections.show("pace")
    assert (settings.pace.queued, settings.pace.chunks_per_second) == (3.0, 2.0)
    assert sections.replace("pace", {})["queued"] == 0.2


@pytest.mark.parametrize("name", ["quirks", "api_key", "model_config", "clock"])
def test_only_what_is_named_is_a_section(sections: Sections, name: str) -> None:
    for use in (sections.show, lambda name: sections.replace(name, {}), lambda name: sections.merge(name, {})):
        with pytest.raises(SectionError, match="there are faults, pace, clock") as caught:
            use(name)
        assert caught.value.status == 404


def test_what_makes_no_sense_changes_nothing(settings: Settings, sections: Sections) -> None:
    with pytest.raises(SectionError, match="pace cannot be set") as caught:
        sections.replace("pace", {"lunch": 1})
    assert (caught.value.status, caught.value.section) == (400, "pace")
    assert settings.pace.queued == 0.2


def test_faults_count_from_when_they_are_set(settings: Settings, draws: Draws, sections: Sections) -> None:
    once = {"timeout": {"share": 1, "times": 1}}

    def drawn() -> str | None:
        return draws.request(settings.faults, "GET", "/")

    sections.replace("faults", once)
    assert [drawn(), drawn()] == ["timeout", None]
    sections.replace("pace", {})
    assert drawn() is None
    sections.replace("faults", once)
    assert drawn() == "timeout"

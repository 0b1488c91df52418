from __future__ import annotations

from pathlib import Path

import pytest

from overnight.sandbox.errors import SandboxError
from overnight.sandbox.maven import CENTRAL, Repository, central, repository_path

NAMESPACE = 'xmlns="http://maven.apache.org/SETTINGS/1.2.0"'


def settings(home: Path, mirrors: str = "", servers: str = "", namespace: str = NAMESPACE) -> Path:
    file = home / ".m2" / "settings.xml"
    file.parent.mkdir()
    file.write_text(
        f"<settings {namespace}><mirrors>{mirrors}</mirrors><servers>{servers}</servers></settings>", "utf-8"
    )
    return home


def mirror(of: str, url: str = "https://mirror.example/maven/", identity: str = "m") -> str:
    return f"<mirror><id>{identity}</id><mirrorOf>{of}</mirrorOf><url>{url}</url></mirror>"


def test_without_settings_it_is_maven_central(tmp_path: Path) -> None:
    assert central(home=tmp_path) == Repository(CENTRAL)


@pytest.mark.parametrize("of", ["central", "*", "external:*", "other,central", "*,!snapshots"])
def test_a_mirror_of_central_takes_its_place(tmp_path: Path, of: str) -> None:
    assert central(home=settings(tmp_path, mirror(of))) == Repository("https://mirror.example/maven")


@pytest.mark.parametrize("of", ["snapshots", "*,!central", "external:http:*", ""])
def test_a_mirror_of_something_else_does_not(tmp_path: Path, of: str) -> None:
    assert central(home=settings(tmp_path, mirror(of))) == Repository(CENTRAL)


def test_a_mirror_by_name_comes_before_one_by_pattern(tmp_path: Path) -> None:
    both = mirror("*", "https://pattern.example") + mirror("central", "https://name.example")
    assert central(home=settings(tmp_path, both)).url == "https://name.example"


def test_the_files_namespace_does_not_matter(tmp_path: Path) -> None:
    assert central(home=settings(tmp_path, mirror("*"), namespace="")).url == "https://mirror.example/maven"


def test_credentials_come_from_the_server_of_the_same_id_and_the_environment(tmp_path: Path) -> None:
    server = "<server><id>m</id><username>u</username><password>${env.PW}</password></server>"
    other = "<server><id>x</id><username>no</username><password>no</password></server>"
    found = central(home=settings(tmp_path, mirror("*"), other + server), environ={"PW": "hush"})
    assert found.auth == ("u", "hush")
    assert "hush" not in repr(found)


def test_an_encrypted_password_is_refused_with_the_remedy(tmp_path: Path) -> None:
    server = "<server><id>m</id><username>u</username><password>{COQLCE6DU6GtcS5P=}</password></server>"
    with pytest.raises(SandboxError, match=r"\$\{env\.NAME\}") as caught:
        central(home=settings(tmp_path, mirror("*"), server))
    assert "COQLCE6DU6GtcS5P" not in str(caught.value)


def test_a_broken_settings_file_is_named(tmp_path: Path) -> None:
    home = settings(tmp_path)
    (home / ".m2" / "settings.xml").write_text("<settings>")
    with pytest.raises(SandboxError, match=r"settings\.xml is not XML"):
        central(home=home)


def test_the_host_in_messages_has_no_credentials() -> None:
    assert Repository("https://user:hush@mirror.example/maven").host == "mirror.example"


def test_a_path_is_mavens() -> None:
    assert repository_path("org.a.b", "c", "1", "jar") == "org/a/b/c/1/c-1.jar"

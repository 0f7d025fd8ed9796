"""A run and a verification without kvm2, which is often off; see test_places.py for its guests."""

from __future__ import annotations

from tests.lab.pair import NOW, Pair


def test_without_kvm2_everything_of_kvm1_is_done(grown: Pair) -> None:
    grown.lab.kill("kvm2")
    grown.ssh("kvm1", "virsh -q autostart --disable web1")
    run = grown.deploy(changes=NOW)
    assert run.code == 0, run.output
    assert run.output.count("kvm2: away") == 1
    assert run.changes("kvm1") == 1, run.output
    done = grown.verify(changes=NOW)
    assert done.returncode == 0, done.stdout
    assert "kvm2: away" in done.stdout
    grown.lab.start("kvm2")

"""The network and the firewall as sets that undo themselves: their commands, run with tools that write down what they
are told, below a temporary folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.model.service import File, FileSet
from operations.openbsd.network import SAVE_RULES, network_set
from tests.sets import KSH, Place

TOOLS = {
    # An interface is a file in `nics`; netstart makes those that it is told, as ifconfig(8) would.
    "ifconfig": """\
case $# in
0) for nic in "$NICS"/*; do echo "${nic##*/}: flags=8843<UP,BROADCAST> mtu 1500"; done ;;
1) [ -e "$NICS/$1" ] ;;
*) echo "ifconfig $*" >>"$SHIM_LOG"; [ "$2" != destroy ] || rm "$NICS/$1" ;;
esac""",
    "route": 'echo "route $*" >>"$SHIM_LOG"; exit 1',
    "netstart": 'echo "netstart${*:+ }$*" >>"$SHIM_LOG"; for nic; do : >"$NICS/$nic"; done',
    "pfctl": """\
case $1 in
-si) echo "Status: $(cat "$NICS/../status") for 0 days" ;;
-sr) echo 'block drop all'; echo 'pass on lo0' ;;
-d) echo "pfctl -d" >>"$SHIM_LOG" ;;
-f) case $2 in -) sed 's/^/stdin: /' >>"$SHIM_LOG" ;; *) grep -q good "$2" && echo "loaded $2" >>"$SHIM_LOG" ;; esac ;;
esac""",
}


class Router(Place):
    """A host with interfaces and a firewall."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, openbsd=True, shell=KSH)
        self.nics = root / "nics"
        self.nics.mkdir()
        for name, text in TOOLS.items():
            self.shim(name, text)

    def environment(self) -> dict[str, str]:
        return super().environment() | {"NICS": str(self.nics)}

    def moved(self, text: str | None) -> str | None:
        """Return a command with the paths of this folder."""
        if text is None:
            return None
        return text.replace("/etc/netstart", str(self.bin / "netstart")).replace("/etc/", f"{self.etc}/")

    def did(self) -> list[str]:
        """Return what the tools were told since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return lines

    def change(self, wanted: FileSet) -> subprocess.CompletedProcess[str]:
        """Apply `wanted` with the paths of this folder, as files of whoever runs the tests."""
        made = [self.file(Path(file.path).name, file.text, file.mode) for file in wanted.files]
        commands = {name: self.moved(getattr(wanted, name)) for name in ("apply", "undo", "undo_at_boot", "before")}
        exclusive = tuple(f"{self.etc}/{Path(pattern).name}" for pattern in wanted.exclusive)
        here = wanted.model_copy(update=commands | {"files": tuple(made), "exclusive": exclusive})
        return self.apply(here, seconds=1000)


def files(nics: dict[str, str], gate: str | None = None) -> list[File]:
    made = [File(path=f"/etc/hostname.{nic}", text=text, group="wheel", mode=0o640) for nic, text in nics.items()]
    return made if gate is None else [*made, File(path="/etc/mygate", text=gate, group="wheel")]


@pytest.fixture
def router(tmp_path: Path) -> Router:
    made = Router(tmp_path)
    for nic in ("lo0", "pflog0", "em0", "em1"):
        (made.nics / nic).touch()
    first = made.change(network_set(files({"em0": "inet 192.0.2.1/24\n", "em1": "up\n"}, "192.0.2.254\n")))
    assert first.returncode == 0, first.stderr
    assert made.confirm("network")
    made.did()
    return made


def test_only_what_changed_is_configured_anew(router: Router) -> None:
    more = {"em0": "inet 192.0.2.2/24\n", "em1": "up\n", "vlan10": "parent em1 vnetid 10\n"}
    assert router.change(network_set(files(more, "192.0.2.254\n"))).returncode == 0
    assert router.did() == ["ifconfig em0 -inet", "ifconfig em0 -inet6", "netstart em0 vlan10"]
    assert (router.nics / "vlan10").exists()


def test_a_new_gateway_alone_replaces_the_routes(router: Router) -> None:
    same = {"em0": "inet 192.0.2.1/24\n", "em1": "up\n"}
    assert router.change(network_set(files(same, "192.0.2.253\n"))).returncode == 0
    assert router.did() == ["route -qn delete default", "route -qn delete -inet6 default", "netstart em0"]


def test_an_interface_whose_file_went_loses_its_addresses(router: Router) -> None:
    with_vlan = {"em0": "inet 192.0.2.1/24\n", "vlan10": "parent em0 vnetid 10\n"}
    assert router.change(network_set(files(with_vlan, "192.0.2.254\n"))).returncode == 0
    assert router.did() == ["ifconfig em1 -inet", "ifconfig em1 -inet6", "netstart vlan10"]
    assert router.confirm("network")
    assert not (router.etc / "hostname.em1").exists()
    without = {"em0": "inet 192.0.2.1/24\n"}
    assert router.change(network_set(files(without, "192.0.2.254\n"))).returncode == 0
    assert router.did() == ["ifconfig vlan10 destroy"]


def test_the_undo_clears_what_only_the_new_files_had(router: Router) -> None:
    more = {"em0": "inet 192.0.2.2/24\n", "em1": "up\n", "vlan10": "parent em1 vnetid 10\n"}
    assert router.change(network_set(files(more, "192.0.2.254\n"))).returncode == 0
    for way in ("timer network 0", "boot"):
        router.did()
        assert router.sh(f"sh {router.state}/rollback {way}").returncode == 0
        done = router.did()
        assert done[-1] == "netstart"
        assert sorted(done[2:-1]) == [
            *("ifconfig em0 -inet", "ifconfig em0 -inet6", "ifconfig em1 -inet", "ifconfig em1 -inet6"),
            "ifconfig vlan10 destroy",
        ]
        assert (router.etc / "hostname.em0").read_text() == "inet 192.0.2.1/24\n"
        assert not (router.etc / "hostname.vlan10").exists()
        assert router.leftovers() == []
        assert router.change(network_set(files(more, "192.0.2.254\n"))).returncode == 0


def test_hardware_that_is_not_there_is_refused_before_anything_is_touched(router: Router) -> None:
    done = router.change(network_set(files({"em7": "inet 192.0.2.1/24\n"})))
    assert done.returncode != 0
    assert "there is no interface em7" in done.stderr
    assert router.did() == []
    assert (router.etc / "hostname.em0").exists()


def test_a_clone_that_was_not_made_is_not_accepted(router: Router) -> None:
    router.shim("netstart", 'echo "netstart $*" >>"$SHIM_LOG"')
    done = router.change(network_set(files({"em0": "inet 192.0.2.1/24\n", "wg0": "wgport 51820\n"})))
    assert done.returncode != 0
    assert "the new files were not accepted" in done.stderr
    assert "there is no interface wg0" in done.stderr
    assert not (router.etc / "hostname.wg0").exists()
    assert router.leftovers() == []


def test_a_mode_that_netstart_would_change_is_an_error() -> None:
    for wrong in ({"mode": 0o644}, {"group": "root"}, {"owner": "bin"}):
        file = files({"em0": "up\n"})[0].model_copy(update=wrong)
        with pytest.raises(ValueError, match="netstart\\(8\\) wants root:wheel and mode 0640"):
            network_set([file])
    with pytest.raises(ValueError, match="would leave the host without an address"):
        network_set([File(path="/etc/mygate", text="192.0.2.254\n")])


@pytest.mark.parametrize("old", ["good\n", "broken\n"])
@pytest.mark.parametrize("status", ["Enabled", "Disabled"])
def test_the_rules_that_ran_come_back_where_the_old_file_does_not_load(old: str, status: str, router: Router) -> None:
    (router.root / "status").write_text(status)
    conf = router.etc / "pf.conf"
    conf.write_text(old)
    wanted = FileSet(
        name="pf",
        files=(File(path="/etc/pf.conf", text="good new\n", group="wheel", mode=0o600),),
        before=SAVE_RULES,
        apply="pfctl -f /etc/pf.conf",
        undo_at_boot="pfctl -f /etc/pf.conf",
        dangerous=True,
    )
    assert router.change(wanted).returncode == 0
    assert router.did() == [f"loaded {conf}"]
    assert router.sh(f"sh {router.state}/rollback timer pf 0").returncode == 0
    rules = [f"loaded {conf}"] if old == "good\n" else ["stdin: block drop all", "stdin: pass on lo0"]
    assert router.did() == ([] if status == "Enabled" else ["pfctl -d"]) + rules
    assert conf.read_text() == old

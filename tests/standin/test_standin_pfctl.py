"""The stand-in's pfctl(8); contract 3.1 row by row, and what 14 says of `-T`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.openbsd.standin import pfctl
from tests.lab.openbsd.standin.pf import conntrack, kernel

# Takes every transaction, and writes them down; a line with "refuse" in it is one that it does not take.
NFT = """#!/bin/sh
case "$*" in
*list*) echo "Error: No such file or directory" >&2; exit 1 ;;
esac
cat >"$0.script"
if [ -e "$0.refuse" ]; then echo "Error: no" >&2; exit 1; fi
cat "$0.script" >>"$0.log"
"""
IP = """#!/bin/sh
case "$*" in
*address*) echo '[{"ifname": "lo", "flags": ["LOOPBACK"], "addr_info": [
    {"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
  {"ifname": "em0", "flags": [], "addr_info": [
    {"local": "203.0.113.2", "prefixlen": 24, "broadcast": "203.0.113.255", "scope": "global"},
    {"local": "fe80::1", "prefixlen": 64, "scope": "link"}]}]' ;;
*-4*) echo '[{"dst": "default", "dev": "em0"}]' ;;
esac
"""


@dataclass
class Run:
    code: int
    out: str
    err: str


Pfctl = Callable[..., Run]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    return clock


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("nft", NFT), ("ip", IP)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))
    monkeypatch.setenv("STANDIN_NFT", str(tmp_path / "nft"))
    monkeypatch.setenv("STANDIN_IP", str(tmp_path / "ip"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    # Unit tests have no connections and change no kernel.
    monkeypatch.setattr(conntrack, "connections", list)
    monkeypatch.setattr(kernel, "reflect_marks", lambda: None)
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pfctl:
    def call(command: str, *, conf: str | None = None, stdin: str = "") -> Run:
        if conf is not None:
            (place / "etc/pf.conf").write_text(conf)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = pfctl.main(command.split())
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return call


def loaded(place: Path) -> str:
    log = place / "nft.log"
    return log.read_text() if log.exists() else ""


# Rulesets.


def test_nf_ok_says_nothing_and_touches_nothing(run: Pfctl, place: Path) -> None:
    assert run("-nf /etc/pf.conf", conf="pass in on em0\n") == Run(0, "", "")
    assert not (place / "var").exists()
    assert loaded(place) == ""


def test_nf_works_without_root_nft_and_interfaces(run: Pfctl, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (place / "nft").unlink()
    (place / "ip").unlink()
    assert run("-nf /etc/pf.conf", conf="block\npass in on em0 proto tcp to (em0) port 22\n") == Run(0, "", "")
    assert run("-nf /etc/pf.conf", conf="blok\n").code == 1
    assert run("-f /etc/pf.conf") == Run(1, "", "pfctl: /dev/pf: Permission denied\n")


def test_v_prints_expanded_rules(run: Pfctl) -> None:
    out = run("-vnf /etc/pf.conf", conf="pass proto udp to port { 53 123 }\n").out
    assert out == "pass proto udp from any to any port = 53\npass proto udp from any to any port = 123\n"


def test_syntax_error(run: Pfctl) -> None:
    conf = "pass\nnonsense here\nblock\nmore of it\n"
    errors = "/etc/pf.conf:2: syntax error\n/etc/pf.conf:4: syntax error\n"
    assert run("-nf /etc/pf.conf", conf=conf) == Run(1, "", errors)
    assert run("-f /etc/pf.conf") == Run(1, "", errors + "pfctl: Syntax error in config file: pf rules not loaded\n")


def test_an_error_leaves_the_old_rules(run: Pfctl, place: Path) -> None:
    run("-ef /etc/pf.conf", conf="block all\n")
    before = loaded(place)
    run("-f /etc/pf.conf", conf="pass all\nnonsense\n")
    assert run("-sr").out == "block drop all\n"
    assert loaded(place) == before


def test_nftables_refusing_is_loud_and_leaves_the_old_rules(run: Pfctl, place: Path) -> None:
    run("-ef /etc/pf.conf", conf="block all\n")
    (place / "nft.refuse").touch()
    with pytest.raises(SystemExit) as exit_:
        run("-f /etc/pf.conf", conf="pass all\n")
    assert exit_.value.code == 99
    (place / "nft.refuse").unlink()
    assert run("-sr").out == "block drop all\n"


def test_file_missing(run: Pfctl) -> None:
    message = "pfctl: cannot open the main config file!: No such file or directory\n"
    assert run("-nf /etc/nosuch") == Run(1, "", message)
    assert run("-f /etc/nosuch").err == message + "pfctl: Syntax error in config file: pf rules not loaded\n"


def test_missing_include(run: Pfctl) -> None:
    assert run("-nf /etc/pf.conf", conf='include "/etc/more"\n') == Run(
        1,
        "",
        "pfctl: pushfile: /etc/more: No such file or directory\n/etc/pf.conf:1: failed to include file /etc/more\n",
    )


def test_missing_table_and_anchor_file(run: Pfctl) -> None:
    assert run("-nf /etc/pf.conf", conf='table <t> file "/etc/bans"\n') == Run(
        1, "", '/etc/pf.conf:1: cannot load "/etc/bans": No such file or directory\n'
    )
    assert run("-nf /etc/pf.conf", conf='load anchor "x" from "/etc/x"\n') == Run(
        1, "", "pfctl: pushfile: /etc/x: No such file or directory\npfctl: load anchors\n"
    )


def test_rules_from_standard_input_and_macros(run: Pfctl) -> None:
    assert run("-f -", stdin="pass on $ext\n").err.startswith("stdin:1: macro 'ext' not defined\n")
    assert run("-D ext=em0 -f -", stdin="pass on $ext\n").code == 0
    assert run("-sr").out == "pass on em0 all flags S/SA\n"


def test_enable_and_disable(run: Pfctl, place: Path) -> None:
    assert run("-d") == Run(1, "", "pfctl: pf not enabled\n")
    assert run("-e") == Run(0, "", "pf enabled\n")
    assert "chain in" in loaded(place)
    assert run("-e") == Run(1, "", "pfctl: pf already enabled\n")
    assert run("-d") == Run(0, "", "pf disabled\n")
    assert loaded(place).endswith("table inet pf\ndelete table inet pf\n")
    assert run("-qe") == Run(0, "", "")


def test_load_comes_before_enable(run: Pfctl) -> None:
    run("-e")
    assert run("-ef /etc/pf.conf", conf="block\n").code == 1
    assert run("-sr").out == "block drop all\n"


def test_nothing_reaches_nftables_while_pf_is_off(run: Pfctl, place: Path) -> None:
    run("-f /etc/pf.conf", conf="block\n")
    assert run("-sr").out == "block drop all\n"
    assert "chain" not in loaded(place)


def test_si(run: Pfctl, now: list[float]) -> None:
    assert run("-si").out.startswith("Status: Disabled ")
    run("-e")
    now[0] += 2 * 86400 + 3 * 3600 + 4 * 60 + 5
    lines = run("-si").out.splitlines()
    assert lines[0] == "Status: Enabled for 2 days 03:04:05".ljust(44) + "Debug: err".rjust(15)
    assert "Checksum" not in "\n".join(lines)


def test_the_checksum_is_of_the_rules(run: Pfctl) -> None:
    def checksum() -> str:
        return next(line for line in run("-vsi").out.splitlines() if line.startswith("Checksum: 0x"))

    run("-f /etc/pf.conf", conf="block\n")
    first = checksum()
    assert "Hostid:   0x" in run("-vsi").out
    run("-f /etc/pf.conf", conf="block # the same\n")
    assert checksum() == first
    run("-f /etc/pf.conf", conf="pass\n")
    assert checksum() != first


def test_show_and_flush(run: Pfctl) -> None:
    conf = "table <b> persist\ntable <a> const { 10.0.0.1 }\ntable <c> counters\nblock from <a> to <gone>\n"
    run("-f /etc/pf.conf", conf=conf)
    assert run("-sT").out == "a\nb\n"
    assert run("-vsT").out == "c-a-r--\ta\n-pa----\tb\n"
    assert run("-sr").out == "block drop from <a> to <gone>\n"
    assert run("-F rules") == Run(0, "", "rules cleared\n")
    assert run("-sr").out == ""
    assert run("-sT").out == "b\n"
    assert run("-F states").err == "0 states cleared\n"
    assert run("-F Tables").err == "1 tables deleted.\n"
    assert run("-sT").out == ""


def test_anchors(run: Pfctl) -> None:
    run("-f /etc/pf.conf", conf='anchor "a/*"\nanchor "b"\n')
    assert run("-a a/one -f -", stdin="table <t> { 10.0.0.1 }\nblock from <t>\n").code == 0
    assert run("-sA").out == "  a\n  b\n"
    assert run("-sA -a a").out == "  a/one\n"
    assert run("-s rules -a a/one").out == "block drop from <t> to any\n"
    assert run("-sT -a a/one").out == "t\n"
    assert run("-a a/one -t t -T show").out == "   10.0.0.1\n"
    assert run("-sT").out == ""


@pytest.mark.parametrize(
    "words", ["", "-Z", "-t t", "-T show", "-s nosuch", "-F nosuch", "-t t -T nosuch", "-h", "extra"]
)
def test_a_wrong_call_prints_the_usage(run: Pfctl, words: str) -> None:
    done = run(words)
    assert done.code == 1
    assert "usage: pfctl" in done.err


@pytest.mark.parametrize(
    "words",
    ["-sq", "-s osfp", "-z", "-o none", "-T load -t t", "-i em0 -sr", "-x urgent", "-vsr", "-vvsT", "-k label -k x"],
)
def test_not_modelled(run: Pfctl, place: Path, words: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(words)
    assert exit_.value.code == 99
    assert f"pfctl {words}:" in (place / "var/standin/unmodelled").read_text()


def test_k(run: Pfctl) -> None:
    assert run("-k 10.0.0.1") == Run(0, "", "killed 0 states from 1 sources and 0 destinations\n")
    assert run("-k 0.0.0.0/0 -k 10.0.0.1").err == "killed 0 states from 1 sources and 1 destinations\n"


# Tables.


def test_add_creates_a_persist_table(run: Pfctl) -> None:
    assert run("-t t -T add 10.0.0.1 10.0.0.1 10/8") == Run(0, "", "1 table created.\n2/3 addresses added.\n")
    assert run("-t t -T add 10.0.0.1") == Run(0, "", "0/1 addresses added.\n")
    assert run("-vsT").out == "-pa----\tt\n"


def test_delete(run: Pfctl) -> None:
    run("-t t -T add 10.0.0.1 !10.0.0.2")
    # An exception is another entry than the address.
    assert run("-t t -T delete 10.0.0.1 10.0.0.2 10.0.0.3") == Run(0, "", "1/3 addresses deleted.\n")
    assert run("-t t -T show").out == "  !10.0.0.2\n"


def test_replace_is_idempotent(run: Pfctl, place: Path) -> None:
    (place / "etc/bans").write_text("10.0.0.1 # one\n!10.0.0.2\n\n2001:db8::/32\n")
    assert run("-t t -T replace -f /etc/bans") == Run(0, "", "1 table created.\n3 addresses added.\n")
    assert run("-t t -T replace -f /etc/bans") == Run(0, "", "no changes.\n")
    assert run("-t t -T show").out == "   10.0.0.1\n  !10.0.0.2\n   2001:db8::/32\n"
    (place / "etc/bans").write_text("10.0.0.2\n10.0.0.9\n")
    assert run("-t t -T replace -f /etc/bans").err == (
        "1 addresses added.\n2 addresses deleted.\n1 addresses changed.\n"
    )
    assert run("-t t -T replace -f -", stdin="").err == "2 addresses deleted.\n"
    assert run("-t t -T show") == Run(0, "", "")


def test_expire_goes_by_the_age_of_the_statistics(run: Pfctl, now: list[float]) -> None:
    run("-t t -T add 10.0.0.1 10.0.0.2")
    now[0] += 50
    run("-t t -T add 10.0.0.3 10.0.0.1")
    run("-t t -T zero 10.0.0.2")
    now[0] += 51
    assert run("-t t -T expire 100") == Run(0, "", "1/1 addresses expired.\n")
    assert run("-t t -T show").out == "   10.0.0.2\n   10.0.0.3\n"
    assert run("-t t -T expire 100").err == "0/0 addresses expired.\n"
    run("-t t -T replace 10.0.0.3 10.0.0.4")
    now[0] += 60
    assert run("-t t -T expire 100").err == "1/1 addresses expired.\n"
    assert run("-t t -T show").out == "   10.0.0.4\n"
    assert run("-t t -T expire soon").code == 1


def test_flush_kill_zero(run: Pfctl) -> None:
    run("-t t -T add 10.0.0.1 10.0.0.2")
    assert run("-t t -T zero").err == "1 table/stats cleared.\n"
    assert run("-t t -T zero 10.0.0.1 10.0.0.9").err == "1/2 addresses cleared.\n"
    assert run("-t t -T flush").err == "2 addresses deleted.\n"
    assert run("-t t -T kill").err == "1 table deleted.\n"
    assert run("-t t -T kill").err == "0 table deleted.\n"
    assert run("-sT").out == ""


def test_test(run: Pfctl) -> None:
    run("-t t -T add 10.0.0.0/8 !10.1.0.0/16 10.1.0.1")
    assert run("-t t -T test 10.9.9.9 10.1.0.1") == Run(0, "", "2/2 addresses match.\n")
    assert run("-t t -T test 10.9.9.9 10.1.0.2") == Run(2, "", "1/2 addresses match.\n")
    assert run("-qt t -T test 11.0.0.1") == Run(2, "", "")


@pytest.mark.parametrize("command", ["show", "flush", "delete 10.0.0.1", "test 10.0.0.1", "expire 9", "zero"])
def test_a_missing_table_or_anchor(run: Pfctl, command: str) -> None:
    assert run(f"-t nosuch -T {command}") == Run(255, "", "pfctl: Table does not exist.\n")
    assert run(f"-a nosuch -t t -T {command}") == Run(255, "", "pfctl: Anchor does not exist.\n")


def test_a_dry_run_is_a_real_one(run: Pfctl) -> None:
    assert run("-nt t -T add 10.0.0.1") == Run(0, "", "1 table created (dummy).\n")
    run("-t t -T add 10.0.0.1")
    assert run("-nt t -T add 10.0.0.1 10.0.0.2").err == "1/2 addresses added (dummy).\n"
    assert run("-nt t -T replace 10.0.0.2").err == ("1 addresses added (dummy).\n1 addresses deleted (dummy).\n")
    assert run("-nt t -T flush").err == "1 addresses deleted (dummy).\n"
    assert run("-nt t -T kill").err == "1 table deleted (dummy).\n"
    assert run("-t t -T show").out == "   10.0.0.1\n"


def test_a_dry_run_of_somebody_else_is_of_the_syntax(run: Pfctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("-nt t -T add 10.0.0.1").err.endswith(" (syntax only).\n")
    assert run("-t t -T show") == Run(1, "", "pfctl: /dev/pf: Permission denied\n")


@pytest.mark.parametrize("prefix", ["-Ta", "-T a", "-Tad", "-T add"])
def test_any_prefix_will_do(run: Pfctl, prefix: str) -> None:
    assert run(f"-t t {prefix} 10.0.0.1").err == "1 table created.\n1/1 addresses added.\n"
    assert run("-t t -Tsh").out == "   10.0.0.1\n"
    assert run("-t t -Te 0").code == 0


def test_const_blocks_add(run: Pfctl) -> None:
    run("-f /etc/pf.conf", conf="table <t> const { 10.0.0.1 }\nblock from <t>\n")
    assert run("-t t -T add 10.0.0.2") == Run(255, "", "pfctl: Operation not permitted\n")
    assert run("-t t -T show").out == "   10.0.0.1\n"


def test_contents_over_a_load(run: Pfctl, place: Path) -> None:
    """A table without addresses keeps them; one with a list, `{ }` or a file is set back."""
    (place / "etc/file").write_text("10.0.0.7\n")
    conf = 'table <kept> persist\ntable <empty> { }\ntable <given> { 10.0.0.8 }\ntable <filed> file "/etc/file"\n'
    conf += "block from { <kept> <empty> <given> <filed> }\n"
    run("-f /etc/pf.conf", conf=conf)
    for name in ("kept", "empty", "given", "filed"):
        assert run(f"-t {name} -T add 10.0.0.1").err == "1/1 addresses added.\n"
    run("-f /etc/pf.conf")
    assert {name: run(f"-t {name} -T show").out.split() for name in ("kept", "empty", "given", "filed")} == {
        "kept": ["10.0.0.1"],
        "empty": [],
        "given": ["10.0.0.8"],
        "filed": ["10.0.0.7"],
    }


def test_a_table_that_nobody_declares_any_more(run: Pfctl) -> None:
    run("-f /etc/pf.conf", conf="table <kept> persist\ntable <gone>\nblock from { <kept> <gone> }\n")
    run("-f /etc/pf.conf", conf="pass\n")
    assert run("-sT").out == "kept\n"


def test_the_sets_follow_a_table(run: Pfctl, place: Path) -> None:
    run("-ef /etc/pf.conf", conf="table <t> persist\nblock in from <t>\n")
    run("-t t -T add 10.0.0.0/8 !10.1.0.0/16 2001:db8::1")
    text = loaded(place)
    assert "10.0.0.0-10.0.255.255, 10.2.0.0-10.255.255.255" in text
    assert "2001:db8::1" in text


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nosuch.invalid", "no IP address found for nosuch.invalid"),
        ("10.0.0.1/40", "no IP address found for 10.0.0.1/40"),
    ],
)
def test_a_bad_address_changes_nothing(run: Pfctl, monkeypatch: pytest.MonkeyPatch, word: str, message: str) -> None:
    monkeypatch.setattr("tests.lab.openbsd.standin.pf.names.addresses", lambda _: ())
    done = run(f"-t t -T add 10.0.0.2 {word}")
    assert (done.code, done.err.splitlines()[0]) == (255, message)
    assert run("-sT").out == ""


def test_what_v_shows(run: Pfctl) -> None:
    run("-t t -T add 10.0.0.1")
    assert run("-vt t -T add 10.0.0.1 10.0.0.2").out == "A  10.0.0.2\n"
    assert run("-vvt t -T add 10.0.0.1 10.0.0.3").out == "   10.0.0.1\nA  10.0.0.3\n"
    assert run("-vt t -T delete 10.0.0.3 10.0.0.9").out == "D  10.0.0.3\n"
    lines = run("-vt t -T show").out.splitlines()
    assert lines[0] == "   10.0.0.1"
    assert lines[1].startswith("\tCleared:     ")


def test_the_state_is_of_this_boot(run: Pfctl, place: Path) -> None:
    run("-ef /etc/pf.conf", conf="block\n")
    assert kernel.STATE.startswith("/var/standin/boot/")
    (place / kernel.STATE.lstrip("/")).unlink()
    assert run("-si").out.startswith("Status: Disabled ")
    assert run("-sr").out == ""

"""What the stand-in's pf.conf(5) accepts, refuses, and does not model; contract 3.2, row by row."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from tests.lab.openbsd.standin.pf import compiler, kernel, names, show
from tests.lab.openbsd.standin.pf.model import State
from tests.lab.openbsd.standin.pf.network import Interface, Network
from tests.lab.openbsd.standin.pf.parser import Failed, Parsed, Unmodelled, parse

NETWORK = Network(
    (
        Interface(
            "lo",
            True,
            (ipaddress.ip_interface("127.0.0.1/8"), ipaddress.ip_interface("::1/128")),
        ),
        Interface(
            "em0",
            False,
            (ipaddress.ip_interface("203.0.113.2/24"), ipaddress.ip_interface("203.0.113.3/24")),
            (ipaddress.ip_address("203.0.113.255"),),
        ),
        Interface(
            "em1",
            False,
            (ipaddress.ip_interface("192.168.1.1/24"), ipaddress.ip_interface("2001:db8:1::1/64")),
        ),
    ),
    ("em0",),
)

# etc/rc of OpenBSD, in our own words: what contract 14 says is in force before pf.conf.
RC = """
block all
pass on lo0
pass in proto tcp from any to any port ssh keep state
pass out proto { tcp, udp } from any to any port domain keep state
pass out inet proto icmp all icmp-type echoreq keep state
pass out inet proto udp from any port bootpc to any port bootps
pass in inet proto udp from any port bootps to any port bootpc
pass out inet6 proto icmp6 all icmp6-type neighbrsol
pass inet6 proto icmp6 all icmp6-type neighbradv
pass out inet6 proto icmp6 all icmp6-type routersol
pass in inet6 proto icmp6 all icmp6-type routeradv
pass out inet6 proto udp from any port dhcpv6-client to any port dhcpv6-server
pass in inet6 proto udp from any port dhcpv6-server to any port dhcpv6-client
pass in proto carp all keep state (no-sync)
set reassemble yes no-df
pass in proto { tcp, udp } from any port { sunrpc, nfsd } to any
pass out proto { tcp, udp } from any to any port { sunrpc, nfsd } !received-on any
"""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))
    # No name service: what is no address and no interface is not found.
    monkeypatch.setattr(names, "addresses", lambda _: ())
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:*:0:0::/:/bin/ksh\n_unbound:*:53:53::/:/sbin/nologin\n")
    (tmp_path / "etc/group").write_text("wheel:*:0:\n_smtpd:*:95:\n")
    (tmp_path / "etc/services").write_text(
        "ssh 22/tcp\ndomain 53/tcp # names\ndomain 53/udp\nbootps 67/udp\nbootpc 68/udp\nhttp 80/tcp www\n"
        "sunrpc 111/tcp portmap\ndhcpv6-client 546/udp\ndhcpv6-server 547/udp\nnfsd 2049/tcp nfs\n"
    )
    return tmp_path


def read(text: str) -> Parsed:
    return parse("pf.conf", text, lambda: NETWORK)


def shown(text: str) -> list[str]:
    found = read(text)
    assert found.errors == []
    return show.rules(found.ruleset.rules)


def compiles(text: str) -> str:
    state = State(0, enabled=True)
    kernel.load(state, read(text).ruleset)
    return compiler.compile_ruleset(state, NETWORK)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        # "bare block/pass are valid rules"
        ("block", ["block drop all"]),
        ("pass", ["pass all flags S/SA"]),
        ("block all", ["block drop all"]),
        ("block return out log quick on em0", ["block return out log quick on em0 all"]),
        ("block quick log (all)", ["block drop log (all) quick all"]),
        ("set block-policy return\nblock\nblock drop", ["block return all", "block drop all"]),
        ("block return-icmp(host-unr)", ["block return-icmp(host-unr) all"]),
        # Macros, lists, continued lines, comments.
        ('ext = "em0"\npass in on $ext', ["pass in on em0 all flags S/SA"]),
        ("ext = em0\npass from ($ext:network)", ["pass from (em0:network) to any flags S/SA"]),
        (
            'p = "{ 22 80 }"\npass proto tcp to port $p',
            [f"pass proto tcp from any to any port = {port} flags S/SA" for port in (22, 80)],
        ),
        ("pass in \\\n  on em0 # \\\n no\nblock", ["pass in on em0 all flags S/SA", "block drop all"]),
        ("pass proto { tcp, udp } no state", ["pass proto tcp all no state", "pass proto udp all no state"]),
        ("pass proto {\n tcp\n udp }", ["pass proto tcp all flags S/SA", "pass proto udp all"]),
        # Hosts.
        ("block from any to self", [*(f"block drop inet{six} from any to {host}" for six, host in [
            ("", "127.0.0.1"), ("6", "::1"), ("", "203.0.113.2"), ("", "203.0.113.3"), ("", "192.168.1.1"),
            ("6", "2001:db8:1::1")])]),
        ("block from em0:network", ["block drop inet from 203.0.113.0/24 to any"]),
        ("block to em0:broadcast", ["block drop inet from any to 203.0.113.255"]),
        ("block to em0:0", ["block drop inet from any to 203.0.113.2"]),
        ("block from no-route", ["block drop from no-route to any"]),
        ("block in from urpf-failed", ["block drop in from urpf-failed to any"]),
        ("block from !<bans>", ["block drop from ! <bans> to any"]),
        ("block from 10/8", ["block drop inet from 10.0.0.0/8 to any"]),
        ("block from 10.0.0.1 - 10.0.0.9", ["block drop inet from 10.0.0.1 - 10.0.0.9 to any"]),
        ("block on egress", ["block drop on egress all"]),
        ("block on ! em0", ["block drop on ! em0 all"]),
        ("block on em9 from (em9)", ["block drop on em9 from (em9) to any"]),
        ("block from <undeclared>", ["block drop from <undeclared> to any"]),
        ("block inet from { 10.0.0.1 2001:db8::1 }", ["block drop inet from 10.0.0.1 to any"]),
        # Ports.
        ("pass proto udp from port >= 1024 to port ssh", ["pass proto udp from any port >= 1024 to any port = 22"]),
        ("pass proto udp to port 1024:65535", ["pass proto udp from any to any port 1024:65535"]),
        ("pass proto udp to port 1 >< 5", ["pass proto udp from any to any port 1 >< 5"]),
        ("pass proto udp to port www", ["pass proto udp from any to any port = 80"]),
        # Translation.
        (
            "match out on em1 inet from !(em1:network) to any nat-to (em1:0)",
            ["match out on em1 inet from ! (em1:network) to any nat-to (em1:0)"],
        ),
        (
            "pass in inet proto tcp to (em0) port { 80 443 } rdr-to 192.168.1.9 port 8080",
            [
                f"pass in inet proto tcp from any to (em0) port = {port} flags S/SA rdr-to 192.168.1.9 port 8080"
                for port in (80, 443)
            ],
        ),
        ("match in all scrub (no-df random-id max-mss 1440)", ["match in all scrub (no-df random-id max-mss 1440)"]),
        # State options: those in parentheses replace the defaults (0.3 item 8).
        ("set state-defaults pflow\npass proto udp", ["pass proto udp all keep state (pflow)"]),
        ("set state-defaults pflow\npass proto udp keep state", ["pass proto udp all"]),
        (
            "set state-defaults pflow\npass proto tcp to port 22 keep state "
            "(max-src-conn 3, max-src-conn-rate 5/30, overload <brutes> flush global)",
            [
                "pass proto tcp from any to any port = 22 flags S/SA keep state "
                "(max-src-conn 3, max-src-conn-rate 5/30, overload <brutes> flush global)"
            ],
        ),
        ("pass proto udp keep state (max 9, max-src-states 3, sloppy)", [
            "pass proto udp all keep state (max 9, max-src-states 3, sloppy)"]),
        ("pass proto tcp modulate state", ["pass proto tcp all flags S/SA modulate state"]),
        ("pass proto tcp flags any", ["pass proto tcp all flags any"]),
        # Antispoof, at load time.
        (
            "antispoof quick for { lo0 em1 }",
            [
                "block drop in quick on ! lo0 inet from 127.0.0.0/8 to any",
                "block drop in quick on ! lo0 inet6 from ::1 to any",
                "block drop in quick on ! em1 inet from 192.168.1.0/24 to any",
                "block drop in quick on ! em1 inet6 from 2001:db8:1::/64 to any",
                "block drop in quick inet from 192.168.1.1 to any",
                "block drop in quick inet6 from 2001:db8:1::1 to any",
            ],
        ),
        # Anchors.
        ('anchor "name/*"', ['anchor "name/*" all']),
        ('anchor "x" on em0 {\n pass\n}', ['anchor "x" on em0 all {', "  pass all flags S/SA", "}"]),
        # The rest.
        ("pass out proto udp user { _unbound 7 }", [f"pass out proto udp all user = {uid}" for uid in (53, 7)]),
        ("pass out proto tcp group != _smtpd flags any", ["pass out proto tcp all group != 95 flags any"]),
        ("pass tag A label \"x\" set prio (6, 7)", ["pass all flags S/SA set ( prio (6, 7) ) label \"x\" tag A"]),
        ("block tagged A\nblock ! tagged B", ["block drop all tagged A", "block drop all ! tagged B"]),
        ("pass out received-on em1", ["pass out all received-on em1 flags S/SA"]),
        ("pass inet proto icmp icmp-type { echoreq, unreach code 4 }", [
            "pass inet proto icmp all icmp-type echoreq", "pass inet proto icmp all icmp-type unreach code 4"]),
        ("set limit states 9\nset limit { states 9, table-entries 9 }\nset loginterface em0\n"
         "set optimization aggressive\nset reassemble yes no-df\nset timeout interval 9\n"
         "set timeout { tcp.first 9 udp.single 9 }\n"
         "set state-policy floating\nset skip on { lo em1 }\n", []),
    ],
)  # fmt: skip
def test_what_is_accepted(text: str, rules: list[str]) -> None:
    # Such a file needs no newline at its end; 0.3 item 9.
    assert shown(text) == rules
    assert shown(text + "\n") == rules
    compiles(text)


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("block nonsense", ["pf.conf:1: syntax error"]),
        ("pass out rtable 0 proto udp", ["pf.conf:1: syntax error"]),
        ("pass\n\nblock in out\npass\npas", ["pf.conf:3: syntax error", "pf.conf:5: syntax error"]),
        ("pass on $x", ["pf.conf:1: macro 'x' not defined", "pf.conf:1: syntax error"]),
        ("pass out proto tcp user nosuch", ["pf.conf:1: unknown user nosuch"]),
        ("pass out proto tcp group nosuch", ["pf.conf:1: unknown group nosuch"]),
        ("pass proto tcp to port nosuch", ["pf.conf:1: unknown port nosuch"]),
        ("pass proto tcp to port 70000", ["pf.conf:1: illegal port value 70000"]),
        ("pass proto nosuch", ["pf.conf:1: unknown protocol nosuch"]),
        (
            "pass from nosuch.invalid",
            ["no IP address found for nosuch.invalid", "pf.conf:1: could not parse host specification"],
        ),
        ("pass from em9", ["no IP address found for em9", "pf.conf:1: could not parse host specification"]),
        ("pass rtable 5", ["pf.conf:1: rtable 5 does not exist"]),
        # "pass … max-src-conn 3 is a syntax error"
        ("pass proto tcp max-src-conn 3", ["pf.conf:1: syntax error"]),
        ("anchor \"x\" { pass }", ["pf.conf:1: syntax error"]),
        ("include \"/etc/nosuch\"", [
            "pfctl: pushfile: /etc/nosuch: No such file or directory",
            "pf.conf:1: failed to include file /etc/nosuch"]),
        ("table <t> file \"/etc/nosuch\"", ["pf.conf:1: cannot load \"/etc/nosuch\": No such file or directory"]),
        (
            "pass to port 80",
            [
                "pf.conf:1: port only applies to tcp/udp",
                "pf.conf:1: skipping rule due to errors",
                "pf.conf:1: rule expands to no valid combination",
            ],
        ),
        ("block keep state", ["pf.conf:1: keep state is great, but only for pass rules"]),
        ("pass inet from 2001:db8::1", ["pf.conf:1: rule expands to no valid combination"]),
        ("in = em0", ["pf.conf:1: syntax error"]),
        ("pass from { }", ["pf.conf:1: syntax error"]),
        ("set limit nosuch 3", ["pf.conf:1: unable to set limit nosuch"]),
        ("set nosuch", ["pf.conf:1: syntax error"]),
        ("pass \"", ["pf.conf:1: unterminated quoted string", "pf.conf:1: syntax error"]),
        ("anchor \"x\" {\npass\n", ["pf.conf:3: syntax error"]),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, errors: list[str]) -> None:
    assert read(text).errors == errors


@pytest.mark.parametrize("text", [
    "pass proto udp keep state (max-src-conn 3)",
    "pass keep state (max-src-conn-rate 3/9)",
    "pass proto tcp keep state (overload <t>)",
])  # fmt: skip
def test_limits_that_need_tcp(text: str) -> None:
    assert read(text).errors[-1] == "pf.conf:1: rule expands to no valid combination"


@pytest.mark.parametrize(
    "text",
    [
        "queue q on em0 bandwidth 100M",
        "pass set queue q",
        "pass from any os OpenBSD",
        "pass route-to 10.0.0.1",
        "pass in divert-to 127.0.0.1 port 8025",
        "pass binat-to 10.0.0.1",
        "pass inet6 af-to inet from em0",
        "pass probability 20%",
        "pass fragment",
        "pass allow-opts",
        "pass once",
        "pass max-pkt-rate 9/1",
        "pass in proto tcp user root",
        "pass out user root",
        "pass keep state (if-bound)",
        "pass keep state (tcp.first 9)",
        "pass keep state (source-track global, max-src-states 3)",
        "pass proto tcp synproxy state",
        "pass on rdomain 1",
        "set debug info",
        "set state-policy if-bound",
        "set reassemble no",
        "set syncookies always",
        'anchor quick "x"',
        'anchor "x" {\ntable <t>\n}',
        "block return-rst (ttl 3)",
        "pass out nat-to { 10.0.0.1 10.0.0.2 }",
        "pass out nat-to 10.0.0.0/24",
        "pass out nat-to (em0)",
        "pass in nat-to 10.0.0.1",
        "match out inet nat-to 203.0.113.2\npass out from <t>",
    ],
)
def test_what_is_not_modelled_is_said(text: str) -> None:
    with pytest.raises(Unmodelled):
        compiles(text)


def test_the_ruleset_of_rc() -> None:
    """Contract 14: in force until pf.conf is loaded, and afterwards where that fails."""
    rules = shown(RC)
    assert "pass in proto tcp from any to any port = 22 flags S/SA" in rules
    assert "pass on lo0 all flags S/SA" in rules
    assert rules[-1] == "pass out proto udp from any to any port = 2049 !received-on any"
    compiles(RC)


def test_an_included_file(scratch: Path) -> None:
    (scratch / "etc/more.conf").write_text("lan = em1\nblock")
    assert shown('include "/etc/more.conf"\npass on $lan\n') == ["block drop all", "pass on em1 all flags S/SA"]
    (scratch / "etc/more.conf").write_text("block\nnonsense\n")
    assert read('include "/etc/more.conf"\npass on em0\nbad\n').errors == [
        "/etc/more.conf:2: syntax error",
        "pf.conf:3: syntax error",
    ]


def test_tables(scratch: Path) -> None:
    """Files take `#` comments and `!`; contract 3.1."""
    (scratch / "etc/bans").write_text("# since yesterday\n10.0.0.0/8 !10.1.0.0/16\n\t2001:db8::1 # one\n")
    (tables) = read(
        "table <a> persist\ntable <b> const { 10.0.0.1, !10.0.0.2 em1:network }\ntable <c> counters { }\n"
        'table <d> persist file "/etc/bans" { 9.9.9.9 }\n'
    ).ruleset.tables
    assert [(table.persist, table.const, table.counters) for table in tables] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
        (True, False, False),
    ]
    contents = [None if table.entries is None else [str(entry).strip() for entry in table.entries] for table in tables]
    assert contents == [
        None,
        ["10.0.0.1", "!10.0.0.2", "192.168.1.0/24", "2001:db8:1::/64"],
        [],
        ["10.0.0.0/8", "!10.1.0.0/16", "2001:db8::1", "9.9.9.9"],
    ]
    (scratch / "etc/bans").write_text("10.0.0.1\nnosuch.invalid\n")
    assert read('table <d> file "/etc/bans"').errors == [
        "no IP address found for nosuch.invalid",
        'pf.conf:1: file "/etc/bans" contains bad data',
    ]


def test_a_missing_anchor_file() -> None:
    with pytest.raises(Failed) as failed:
        read('load anchor "x" from "/etc/nosuch"')
    assert failed.value.args == ("pfctl: pushfile: /etc/nosuch: No such file or directory", "pfctl: load anchors")


def test_macros_of_the_command_line_win() -> None:
    found = parse("pf.conf", "ext = em0\npass on $ext\n", lambda: NETWORK, {"ext": "em1"})
    assert show.rules(found.ruleset.rules) == ["pass on em1 all flags S/SA"]


def test_numbers_and_dynamic_addresses_need_no_network() -> None:
    """What loads in the state of early boot asks for no interface's address."""

    def none() -> Network:
        raise AssertionError("asked for the interfaces")

    text = "set skip on lo\nblock\npass in on egress proto tcp to (em0) port 22\nmatch out inet nat-to (em0:0)\n"
    assert parse("pf.conf", text, none).errors == []


def test_more_rules_than_can_be_counted() -> None:
    with pytest.raises(Unmodelled):
        compiles("block\n" * 2048)

"""The reader of what is sent to a host: every kind of fault is found, and what is right passes."""

from __future__ import annotations

import re

import pytest

from tests.shell import faults, foreign, shape, within

RIGHT = """\
set -eu
work=$(mktemp -d /tmp/homefleet.XXXXXXXXXX)
trap 'rm -rf "$work"' EXIT
say() { printf '%s\\n' "$*" >&2; }
stat -f '%Su %Sg %OLp' "$work" | sed -e 's/^[a-z]* //' | grep -E '^(wheel|root) ' || say 'whose is it?'
find /var/log -type f -newer /etc/rc -exec sha256 -q {} +
doas -n -u _x env -i A=b timeout -k 1 5 tail -n "+$((1 + 1))" /etc/hosts
n=$(wc -l <"$1"); [ "$n" -lt 3 ] && sleep "$n"
pfctl -t deploy_allowed -T replace -f - <<END
192.0.2.1
END
"""


def test_what_openbsd_has_passes() -> None:
    assert faults([RIGHT], openbsd=True) == []


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("sed --in-place s/a/b/ f", "long option --in-place"),
        (r"sed 's/a\+/b/' f", r"\+ is GNU's in a basic regular expression"),
        ("grep -P a f", "option -P is not OpenBSD's"),
        ("stat -c %a f", "no option -c"),
        ("date -d tomorrow", "no option -d"),
        ("cp -u a b", "option -u is not OpenBSD's"),
        ("find . -printf %p", "find has no -printf"),
        ("head --lines=1 f", "long option --lines=1"),
        ("mktemp -t x", "option -t of OpenBSD has no counterpart"),
        ("sleep 1m", "sleep 1m"),
        ("expr length abc", "expr's word length is GNU's"),
        ("sha256sum f", "no such command"),
        ("systemctl restart sshd", "no such command"),
        ("base64 f", "no such command"),
        ("local x=1", "no such command"),
        ("[[ a = b ]]", "no such command"),
        ("source f", "no such command"),
        ("bash -c true", "no such command"),
        ("doas -n bash -c true", "no such command"),
        ("find . -exec chattr +i {} +", "no such command"),
        ("doas env A=b timeout -k 1 5 stat -c %a f", "no option -c"),
        ("x=$(readlink --canonicalize f)", "long option --canonicalize"),
        ("if true; then for x in a; do ls --color; done; fi", "long option --color"),
    ],
)
def test_what_openbsd_has_not_is_found(command: str, why: str) -> None:
    (line,) = foreign([command])
    assert line.endswith(f": {why}")


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'date -d now'",
        "doas -n sh -c \"date -d 'now'\"",
        "su -s /bin/sh owner -c 'date -d now'",
        "trap 'date -d now' EXIT",
        "cat >x.rollback <<'END'\ndate -d now\nEND\n",
        "cat >/etc/hook <<'END'\n#!/bin/sh\ndate -d now\nEND\n",
    ],
)
def test_a_script_within_a_script_is_read(command: str) -> None:
    (line,) = faults([command], openbsd=True)
    assert line.endswith(": no option -d")


def test_the_parts_of_one_file_are_one_script() -> None:
    parts = "(\ncat <<'A'\nif true; then\nA\ncat <<'B'\ndate; fi\nB\n) >x.undo\n"
    assert within(parts) == ["if true; then\ndate; fi\n"]


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("echo $1", "SC2086"),
        ("echo -e x", "SC3037"),
        ('f() { local x; x=1; echo "$x"; }; f', "SC3043"),
        ("x=1; echo $((x--)); [[ $x = 1 ]]", "SC3010"),
    ],
)
def test_what_shellcheck_says_is_a_fault(command: str, number: str) -> None:
    assert any(line.endswith(f"[{number}]") for line in faults([command], openbsd=False))


@pytest.mark.parametrize("command", ["if true; then :", "cat <(ls)", "x=(1 2)", 'echo "${x//a/b}"'])
def test_what_no_posix_shell_can_parse_is_refused(command: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(command)):
        faults([command], openbsd=False)


def test_a_shape_is_what_the_shell_sees() -> None:
    one = "cat >f <<'END-0123456789abcdef'\ntext 1\nEND-0123456789abcdef\nchmod 600 f\n"
    two = "cat >f <<'END-fedcba9876543210'\nother\n\nEND-fedcba9876543210\nchmod 644 f\n"
    assert shape(one) == shape(two)
    assert shape(one) != shape(two + "rm f\n")

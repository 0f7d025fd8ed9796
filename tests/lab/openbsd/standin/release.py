"""Which OpenBSD a stand-in plays: the strings of its kernel (contract 0.3 item 12, 7.5)."""

from .place import root

ARCH = "amd64"
OVERRIDE = "/usr/lib/standin/kern.version"
"""A file that, where it is, has the two lines of another kernel: a release, a beta, a snapshot shortly before one."""

_CURRENT = (
    "OpenBSD 7.9-current (GENERIC.MP) #123: Sat Nov 21 10:22:33 MST 2026\n"
    "    deraadt@amd64.openbsd.org:/usr/src/sys/arch/amd64/compile/GENERIC.MP"
)


def kern_version() -> str:
    """Return `kern.version`: two lines, the first one with or without ``-current``."""
    try:
        return root(OVERRIDE).read_text().rstrip("\n")
    except FileNotFoundError:
        return _CURRENT


def first_line() -> str:
    """Return the line of `kern.version` that /etc/motd begins with and that pkg_add(1) looks at."""
    return kern_version().splitlines()[0]


def number() -> str:
    """Return the release without suffix, such as ``7.9``: what `uname -r` says also on -current."""
    return first_line().split()[1].partition("-")[0]


def suffix() -> str:
    """Return ``-current``, ``-beta``, ``-stable``, or nothing."""
    word = first_line().split()[1]
    return word[len(number()) :]


def build() -> str:
    """Return `kern.osversion`, such as ``GENERIC.MP#123``."""
    words = first_line().split()
    return words[2].strip("()") + words[3].rstrip(":")

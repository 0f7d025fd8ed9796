"""A process' name as ps(1) and pgrep(1) see it: a program of the stand-in is Python with its own arguments."""

from pathlib import Path

_ARG_START, _ARG_END = 47, 48
"""Fields of proc_pid_stat(5) after the second one, counted from nought, minus the two."""


def set_title(text: str) -> None:
    """Become `text` for everybody who looks at this process' arguments, as setproctitle(3) does.

    Args:
        text: the arguments joined by blanks, or what a daemon calls itself; cut to the room there is.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[n - 2]) for n in (_ARG_START, _ARG_END))
    room = end - start
    data = text.encode()[: room - 1].ljust(room, b"\0")
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(data)

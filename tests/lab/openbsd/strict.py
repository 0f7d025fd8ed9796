"""The front of the small tools, strict.c: its names, and the program itself."""

import re
from pathlib import Path

from tests.lab.host import run

SOURCE = Path(__file__).parent / "strict.c"


def names() -> tuple[str, ...]:
    """Return the tools that strict.c stands in front of, as its table has them."""
    table = SOURCE.read_text().partition("tools[] = {")[2].partition("};")[0]
    return tuple(re.findall(r'^\t\{"([^"]+)",', table, re.MULTILINE))


def compile_to(program: Path) -> None:
    """Compile strict.c; the program decides by the name that it is started under.

    Args:
        program: where it is written, linked statically, so that it runs in any root.

    Raises:
        LabError: the compiler failed.
    """
    flags = ("-O2", "-static", "-Wall", "-Wextra", "-Werror")
    run(["gcc", *flags, "-o", program, SOURCE])

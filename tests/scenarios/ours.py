"""The scenarios through this project's operations; each host gets its own ones."""

from pyinfra import host

from fleet.connector import record_of
from tests.scenarios.table import calls, names

record_of(host.name).concerned = True
mine = calls("ours", int(host.name[1:]))
for step, name in host.loop(list(enumerate(names("ours")))):  # type: ignore[no-untyped-call]
    if step < len(mine):
        mine[step][1].operation(name=name, **mine[step][1].arguments)

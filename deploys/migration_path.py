"""One migration path, from the twin that a guest leaves to the one that it goes to; opened for one move.

    pyinfra -y inventories/home.py deploys/migration_path.py --data source=kvm1 --data peer=kvm2 --data minutes=30

`close=true` closes it at once (`force=true`: also while a guest is arriving), `status=true` only asks.
"""

from pyinfra import host
from pyinfra.api.exceptions import DeployError

from deploys.services.hypervisor import Hypervisor
from fleet.connector import Presence, reach, record_of
from fleet.load import current
from operations.linux.migration import (
    SUBJECT,
    between,
    path_acceptance,
    path_closing,
    path_key,
    path_proof,
    path_status,
)
from operations.verdict import verdict

fleet = current()
source, peer = (str(host.data.get(end) or "") for end in ("source", "peer"))
closing, asking = bool(host.data.get("close")), bool(host.data.get("status"))
try:
    move = between(fleet, source, peer, int(host.data.get("minutes", 30)))
except ValueError as error:
    raise DeployError(f"migration path: {error}") from None
for end in (source, peer):
    if fleet.host(end).service(Hypervisor) is None:
        raise DeployError(f"migration path: {end} is no hypervisor")

if host.name in (source, peer):
    record = record_of(host.name)
    record.concerned = True
    presence = reach(host)
    if presence is Presence.REACHED and asking:
        path_status(name="Status")
    elif presence is Presence.REACHED and closing:
        path_closing(move=move, force=bool(host.data.get("force")), name="Closing")
    elif presence is Presence.REACHED:
        path_key(move=move, name="Key")
        path_acceptance(move=move, name="Acceptance")
        path_proof(move=move, name="Proof")
    elif not (asking or closing):
        record.fail(SUBJECT, "not opened: this end of it cannot be reached")
    verdict(name="Verdict")

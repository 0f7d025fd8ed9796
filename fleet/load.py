"""Which inventory is the current one: the last line of an inventory file calls `publish`.

pyinfra executes an inventory file by path; other inventories are then imported as modules of the package
``inventories``. All of them are checked before the first connection, and an error leaves as `SystemExit` with one
line, which pyinfra prints as it is (reference 9.3).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from fleet.model.base import InventoryError, check, unread
from fleet.model.secret import SecretPlace
from fleet.model.site import Fleet, Host, Site, check_fleet
from fleet.pki.published import published
from fleet.pki.store import Store
from fleet.pki.wanted import PkiError

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

SITES = ("home", "exoscale", "vultr")
"""The production inventories; each is a file in inventories/."""

_CURRENT: list[Fleet] = []


def publish(namespace: dict[str, Any], *sites: Site) -> None:
    """Make `sites` the current fleet and export one pyinfra group a role, an operating system and a site.

    Arguments: `namespace`, the inventory file's ``globals()``. Called while the file is imported as a module, it
    only checks the sites by themselves. Raises SystemExit with one line an error.
    """
    try:
        for site in sites:
            check(site, str((unread(site) or {}).get("name") or Path(str(namespace.get("__file__"))).stem))
        if str(namespace.get("__name__", "")).startswith("inventories."):
            return
        production = [_import(name) for name in SITES]
        for fleet in (Fleet(sites=tuple(production)), Fleet(sites=sites)):
            check_fleet(fleet)
    except InventoryError as error:
        raise SystemExit(str(error)) from None
    fleet = Fleet(sites=sites) if len(sites) > 1 else _within(production, sites)
    _CURRENT[:] = [_with_pki(fleet, sites)]
    namespace.update(groups(sites))


def _with_pki(fleet: Fleet, sites: tuple[Site, ...]) -> Fleet:
    """Return `fleet` with what the register of the inventory's own `sites` says; SystemExit if it cannot be used."""
    folders = {pki_folder(site) for site in sites}
    if len(folders) > 1:
        raise SystemExit("the sites of one inventory have their secrets in different folders: one PKI is for all")
    try:
        return fleet.model_copy(update={"published": published(Store(folders.pop()).read())})
    except PkiError as error:
        raise SystemExit(str(error)) from None


def pki_folder(site: Site) -> Path:
    """Return the folder of the private PKI that `site` belongs to, beside its secrets."""
    return resolve(site.secrets.folder) / "pki"


def _within(production: list[Site], sites: tuple[Site, ...]) -> Fleet:
    """Return the fleet that a site of one's own is seen in: the production sites, it in the place of its namesake."""
    mine = {site.name: site for site in sites}
    others = tuple(site for site in production if site.name not in mine)
    return Fleet(sites=(*sites, *others))


def _import(name: str) -> Site:
    module = importlib.import_module(f"inventories.{name}")
    site = module.site
    assert isinstance(site, Site)
    return site


def current() -> Fleet:
    """Return the fleet of the inventory that pyinfra runs with; RuntimeError if none was published."""
    if not _CURRENT:
        raise RuntimeError("no inventory was published: its last line has to be publish(globals(), site)")
    return _CURRENT[0]


def inventory_path(name: str) -> Path:
    """Return the file of inventory `name` (home, lab, ...), or of one given by a path ending in ``.py``.

    Raises SystemExit naming the inventories there are.
    """
    path = Path(name).absolute() if name.endswith(".py") else ROOT / "inventories" / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (ROOT / "inventories").glob("[a-z]*.py")))
        raise SystemExit(f"no inventory {name!r}: there are {known}")
    return path


def load(name: str) -> tuple[Fleet, tuple[Site, ...]]:
    """Return the fleet seen from inventory `name` (home, lab, ...) and the sites that the inventory itself has.

    Raises SystemExit with one line an error, or naming the inventories there are.
    """
    path = inventory_path(name)
    namespace: dict[str, Any] = {"__file__": str(path), "__name__": "inventory"}
    exec(compile(path.read_text(), str(path), "exec"), namespace)  # noqa: S102 - as pyinfra does
    fleet = current()
    wanted = {host for group in namespace.values() if isinstance(group, list) for host, _ in group}
    sites = tuple(site for site in fleet.sites if any(f"@fleet/{host.name}" in wanted for host in site.hosts))
    return fleet, sites


def groups(sites: tuple[Site, ...]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return pyinfra's groups: ``all``, one for each operating system, role and site that has a host."""
    made: dict[str, list[tuple[str, dict[str, Any]]]] = {"all": []}
    for site in sites:
        for host in site.hosts:
            entry = (f"@fleet/{host.name}", host_data(site, host))
            for group in ("all", str(host.os), site.name, *host.roles):
                made.setdefault(group.replace("-", "_"), []).append(entry)
    return made


def host_data(site: Site, host: Host) -> dict[str, Any]:
    """Return what pyinfra has to know of a host of `site`: connection and presence, nothing else."""
    connection = host.connection
    data: dict[str, Any] = {
        "ssh_hostname": connection.address,
        "ssh_port": connection.port,
        "ssh_user": connection.user,
        "known_hosts": [str(path) for path in known_hosts_files(site, host)],
        "presence": host.presence,
    }
    if connection.first_port is not None:
        data["first_port"] = connection.first_port
    if connection.escalate is not None:
        data[f"_{connection.escalate}"] = True
    if connection.key is not None:
        data["ssh_key"] = str(resolve(connection.key))
    if connection.person_key is not None:
        data["person_key"] = str(resolve(connection.person_key))
    return data


def known_hosts_file(place: SecretPlace, site: str, host: str) -> Path:
    """Return the file with the public half of a host's key, a line of known_hosts under the host's plain name.

    It is part of the repository, beside the encrypted file of the host.
    """
    return resolve(place.folder) / site / "known_hosts" / host


def known_hosts_files(site: Site, host: Host) -> list[Path]:
    """Return the files that know the key of `host`, best first; whether they are there is not looked at.

    The first is the repository's. The second, where the inventory names one, counts beside it.
    """
    named = host.connection.known_hosts
    ours = known_hosts_file(site.secrets, site.name, host.name)
    return [ours, *([resolve(named)] if named is not None else [])]


def ssh_options(site: Site, host: Host) -> dict[str, str]:
    """Return the options of ssh_config(5) by which OpenSSH knows `host` as a run does.

    Without a file of `known_hosts_files` there are none: what the owner's own known_hosts say counts.
    """
    files = known_hosts_files(site, host)
    if not any(path.exists() for path in files):
        return {}
    return {
        "UserKnownHostsFile": " ".join('"' + str(path).replace("%", "%%") + '"' for path in files),
        "GlobalKnownHostsFile": "none",
        **({"HostKeyAlias": host.name} if files[0].exists() else {}),
    }


def resolve(path: str) -> Path:
    """Return a path of the inventory, relative to the project or to the home (``~``), as an absolute one."""
    return (ROOT / Path(path).expanduser()).absolute()

"""A run whose secrets are not right stops before the first connection, with one message that names the file.

The host is a socket of the test: it counts who connects. No lab is needed.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from fleet.load import ROOT, load
from fleet.model.site import Fleet
from fleet.secrets import age, generate
from fleet.secrets.store import Document, Store
from fleet.secrets.wanted import wanted

INVENTORY = """\
from fleet.load import publish
from fleet.model.secret import SecretPlace
from inventories import vultr

_host = vultr.site.host("ns3")
_connection = _host.connection.model_copy(update={{"address": "127.0.0.1", "port": {port}, "first_port": None}})
_secrets = SecretPlace(folder="{folder}/secrets", identity="{folder}/keys/{{site}}.age-key")
site = vultr.site.model_copy(
    update={{"hosts": (_host.model_copy(update={{"connection": _connection}}),), "secrets": _secrets}}
)
publish(globals(), site)
"""


@dataclass
class Production:
    """ns3 as production has it, but for its address and the folder of its secrets."""

    folder: Path
    socket: socket.socket
    connections: list[object] = field(default_factory=list)

    @property
    def inventory(self) -> Path:
        return self.folder / "vultr.py"

    def store(self) -> tuple[Fleet, Store]:
        fleet, _ = load(str(self.inventory))
        place = fleet.site_of(fleet.host("ns3")).secrets
        return fleet, Store(fleet, lambda _: place)

    def fill(self, kind: str = "production") -> None:
        """Make a key and a reader for two sites, and the file of ns3."""
        fleet, store = self.store()
        for site in fleet.sites[:2]:
            key = age.new_identity()
            path = store.identity_file(site)
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{key.get_secret_value()}\n")
            path.chmod(0o600)
            readers = store.readers_file(site)
            readers.parent.mkdir(parents=True, exist_ok=True)
            readers.write_text(f"{age.recipient_of(key)} # the owner\n")
        host = fleet.host("ns3")
        values = {secret.name: generate.value(secret.shape) for secret in wanted(fleet, host)}
        document = Document.model_validate({"kind": kind, "of": "ns3"}).with_values(values, date(2026, 11, 23))
        store.write(store.of_host(host), document)

    def run(self) -> tuple[int, str]:
        """Run everything of the host as the owner does; return the exit code and what was said."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("pyinfra")), "-y", str(self.inventory), str(ROOT / "deploys/site.py")],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Production]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = Production(tmp_path, server)
        text = INVENTORY.format(port=server.getsockname()[1], folder=tmp_path)
        made.inventory.write_text(text)

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                made.connections.append(connection)
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        made.fill()
        yield made
        server.shutdown(socket.SHUT_RDWR)


def without_a_key(production: Production) -> None:
    (production.folder / "keys" / "vultr.age-key").unlink()


def with_the_key_of_another_site(production: Production) -> None:
    fleet, _ = production.store()
    other = next(site.name for site in fleet.sites[:2] if site.name != "vultr")
    shutil.copy(production.folder / "keys" / f"{other}.age-key", production.folder / "keys" / "vultr.age-key")


def with_a_file_of_a_lab(production: Production) -> None:
    production.fill("lab")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_a_key, "vultr.age-key: the age key of vultr cannot be read: No such file"),
        (with_the_key_of_another_site, "vultr.age-key, the age key of vultr: No matching keys found"),
        (with_a_file_of_a_lab, "secrets/vultr/ns3.age: is a lab file among those of production"),
    ],
)
def test_a_run_that_cannot_use_its_secrets_connects_to_nobody(
    production: Production, change: Callable[[Production], None], words: str
) -> None:
    change(production)
    code, said = production.run()
    assert code != 0
    assert said.count("secrets/vultr/ns3.age: ") == 1 and words in said, said
    assert "Traceback" not in said and "Starting operation" not in said, said
    assert production.connections == []


def test_a_run_that_can_use_them_connects(production: Production) -> None:
    code, said = production.run()
    assert code != 0 and "ns3: FAILED: " in said, said
    assert production.connections != []

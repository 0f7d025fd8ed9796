"""Which secrets a host wants: those whose marks are in what its services render and declare. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.model.secret import Secret, marks
from fleet.model.service import Declaration, FileSet
from fleet.model.site import Fleet, Host
from fleet.secrets.store import SecretsError


def wanted(fleet: Fleet, host: Host) -> tuple[Secret, ...]:
    """Return the secrets of a host, each once, sorted by slot.

    Raises SecretsError for a mark where its value would be seen by others: in a command, a name, a sysctl. A mark
    belongs into the text of a file or into the password hash of an account and nowhere else (DESIGN O5).
    """
    found: dict[tuple[tuple[str, str] | None, str], Secret] = {}
    for service in host.services:
        where = f"{host.name}: {type(service).__name__}"
        try:
            said = [*_declared(service.declares(host, fleet)), *_rendered(service.renders(host, fleet))]
        except ValueError as error:
            raise SecretsError(f"{where}: {error}") from None
        for secret in said:
            first = found.setdefault((secret.pair, secret.name), secret)
            if first != secret:
                raise SecretsError(f"{where}: {secret.name} is wanted in two ways: {secret} and {first}")
    return tuple(sorted(found.values(), key=lambda secret: secret.slot))


def _declared(said: Declaration) -> Iterator[Secret]:
    public = said.model_dump_json(exclude={"accounts": {"__all__": {"password"}}})
    _none(public, "what it declares")
    for account in said.accounts:
        yield from marks(account.password or "")


def _rendered(sets: Iterable[FileSet]) -> Iterator[Secret]:
    for files in sets:
        _none(files.model_dump_json(exclude={"files": {"__all__": {"text"}}}), f"the commands or paths of {files.name}")
        for file in files.files:
            yield from marks(file.text)


def _none(text: str, where: str) -> None:
    for secret in marks(text):
        raise ValueError(f"the secret {secret.slot} is in {where}, where others can see it")

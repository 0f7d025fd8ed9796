"""libvirt in memory, on top of an LVM in memory: interprets the commands of a plan.

Like `tests.model_lvm` it knows what the planners write and nothing else. Its definitions go through XML, as
they do on a host.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace

from facts.linux.domain import Definition, from_xml
from facts.linux.libvirt import Domain, LibvirtState, Network
from operations.steps import Plan, Step
from tests.model_lvm import CommandError, ModelLvm

WAIT = re.compile(r"while \[ \"\$\(virsh -q domstate (\S+)\)\" != \"shut off\" \]; do .* done")


@dataclass
class ModelHost:
    """A hypervisor: its LVM, its domains and networks. `deaf` guests do not hear `virsh shutdown`."""

    lvm: ModelLvm = field(default_factory=ModelLvm)
    domains: dict[str, Domain] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    answers: dict[str, bool | None] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    commands: list[list[str]] = field(default_factory=list)

    def state(self) -> LibvirtState:
        """What the fact would report."""
        return LibvirtState(
            host="kvm1", domains=dict(self.domains), networks=dict(self.networks), answers=dict(self.answers)
        )

    def apply(self, plan: Plan) -> dict[str, str]:
        """Carry out a plan as `perform` does: a subject that was refused or failed is left alone from then
        on.

        Returns the steps that failed: what each was, by subject.
        """
        left_alone = {refusal.subject for refusal in plan.refused}
        failed: dict[str, str] = {}
        for step in plan.steps:
            if step.subject in left_alone or step.subject in failed:
                continue
            try:
                self.carry_out(step)
            except CommandError as error:
                failed[step.subject] = f"{step.label}: {error}"
        return failed

    def carry_out(self, step: Step) -> None:
        """Carry out one step. Fails: CommandError where a real command would fail."""
        for command in step.command.split(" && "):
            wait = WAIT.fullmatch(command)
            if wait:
                if self._domain(wait[1]).state != "shut off":
                    raise CommandError("still running")
            elif command.startswith("end="):
                continue
            elif command.startswith("virsh "):
                self._virsh(shlex.split(command), step.stdin)
            else:
                self.lvm.run(command)

    def _virsh(self, words: list[str], stdin: str | None) -> None:
        self.commands.append(words)
        assert words[:2] == ["virsh", "-q"], words
        verb, arguments = words[2], words[3:]
        if verb == "define":
            assert arguments == ["/dev/stdin"] and stdin is not None
            self._define(from_xml(stdin))
        elif verb == "start":
            self._start(self._domain(arguments[0]))
        elif verb == "shutdown":
            self._shutdown(self._domain(arguments[0]))
        elif verb == "autostart":
            off = arguments[0] == "--disable"
            self._set(self._domain(arguments[-1]), autostart=not off)
        elif verb == "undefine":
            assert len(arguments) == 1, arguments
            domain = self._domain(arguments[0])
            if domain.active:
                self._set(domain, persistent=False, definition=None)
            else:
                del self.domains[domain.name]
        elif verb == "blockresize":
            self._blockresize(*arguments)
        elif verb.startswith("net-"):
            self._network(verb, arguments)
        else:
            raise AssertionError(f"not modelled: {words}")

    def _define(self, definition: Definition) -> None:
        assert definition.extras == ()
        old = self.domains.get(definition.name)
        if old is None:
            old = Domain(definition.name, definition.uuid, "shut off", "unknown")
        if old.uuid != definition.uuid:
            raise CommandError("domain already exists with another uuid")
        self._set(old, definition=definition, persistent=True)

    def _start(self, domain: Domain) -> None:
        if domain.active or not isinstance(domain.definition, Definition):
            raise CommandError("domain is already active, or has no definition")
        capacities = {}
        for disk in domain.definition.disks:
            volume = self.lvm.volumes.get(disk.device.removeprefix("/dev/"))
            if volume is None or not volume.active:
                raise CommandError(f"cannot access {disk.device}")
            assert volume.spec not in self.lvm.dirty, f"{domain.name} would see old data on {volume.spec}"
            assert not {"fresh", "unwiped"} & volume.tags, f"{domain.name} starts on {volume}"
            assert not any(tag.startswith("retired=") for tag in volume.tags), f"{domain.name}: {volume}"
            self.lvm.volumes[volume.spec] = replace(volume, open=True)
            capacities[disk.device] = volume.size
        self._set(domain, state="running", reason="booted", live=domain.definition, capacities=capacities)

    def _shutdown(self, domain: Domain) -> None:
        if not domain.active:
            raise CommandError("domain is not running")
        if domain.name in self.deaf:
            return
        for path in domain.capacities:
            spec = path.removeprefix("/dev/")
            if spec in self.lvm.volumes:
                self.lvm.volumes[spec] = replace(self.lvm.volumes[spec], open=False)
        self._set(domain, state="shut off", reason="shutdown", live=None, capacities={})

    def _blockresize(self, name: str, path: str, size: str) -> None:
        domain = self._domain(name)
        volume = self.lvm.volumes[path.removeprefix("/dev/")]
        assert size.endswith("B") and path in domain.capacities
        if int(size[:-1]) > volume.size:
            raise CommandError("beyond the device")
        self._set(domain, capacities={**domain.capacities, path: int(size[:-1])})

    def _network(self, verb: str, arguments: list[str]) -> None:
        network = self.networks.get(arguments[0])
        if network is None:
            raise CommandError("no such network")
        if verb == "net-destroy" and network.active:
            self.networks[network.name] = replace(network, active=False)
        elif verb == "net-autostart" and arguments[1:] == ["--disable"]:
            self.networks[network.name] = replace(network, autostart=False)
        elif verb == "net-undefine" and not network.active:
            del self.networks[network.name]
        else:
            raise CommandError(f"{verb} {arguments}")

    def _domain(self, name: str) -> Domain:
        if name not in self.domains:
            raise CommandError(f"failed to get domain {name}")
        return self.domains[name]

    def _set(self, domain: Domain, **changes: object) -> None:
        self.domains[domain.name] = replace(domain, **changes)  # type: ignore[arg-type]

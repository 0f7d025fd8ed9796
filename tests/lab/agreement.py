"""The models that the property tests use, held against the real LVM and the real libvirt of a lab machine.

One random plan after the other is made from what the model says, carried out on the model and on the machine, and
both are compared. Where a real command fails, the model has to fail as well, and the other way round.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, timedelta

from facts.linux.domain import Definition, Disk, Interface, uuid_of
from facts.linux.libvirt import Domain, Libvirt, LibvirtState
from facts.linux.lvm import FRESH, MANAGED, Lvm, LvmState
from operations.linux.domains import plan_domains
from operations.linux.places import Guest, places_of
from operations.linux.volumes import EXTENT, Volume, VolumeGroup, plan_retirement, plan_volumes
from operations.steps import Plan
from tests.lab.pair import Pair
from tests.model_libvirt import ModelHost
from tests.model_lvm import CommandError, ModelLvm

GROUP = "agree"
IMAGE = "/var/tmp/agree.img"
START = date(2026, 3, 1)


class Machine:
    """A lab machine with a volume group of its own on a loop device, for random plans."""

    def __init__(self, pair: Pair, host: str) -> None:
        self.pair = pair
        self.host = host
        self.clear()
        pair.ssh(host, f"truncate -s 512M {IMAGE} && losetup -f {IMAGE}")
        self.device = pair.ssh(host, f"losetup -n -O NAME -j {IMAGE}").strip()
        self.group = VolumeGroup(GROUP, self.device, 100 * EXTENT)

    def clear(self) -> None:
        """Take away the group, the loop device, and the domains of a run before."""
        self.pair.ssh(
            self.host,
            "for d in $(virsh -q list --all --name | grep ^agree-); do virsh -q destroy $d 2>/dev/null; "
            f"virsh -q undefine $d; done; vgremove -q -f {GROUP} 2>/dev/null; "
            f"for l in $(losetup -n -O NAME -j {IMAGE}); do pvremove -q -ff -y $l 2>/dev/null; losetup -d $l; done; "
            f"rm -f {IMAGE}",
        )

    def lvm(self) -> LvmState:
        """Return LVM's state as the fact reads it, of this group alone."""
        out = self.pair.ssh(self.host, Lvm().command(devices=[self.device]))
        found = Lvm().process(out.splitlines())
        assert found is not None
        return LvmState(
            found.installed,
            {name: group for name, group in found.groups.items() if name == GROUP},
            tuple(physical for physical in found.physical if physical.device == self.device),
            {spec: volume for spec, volume in found.volumes.items() if volume.group == GROUP},
            found.devices,
        )

    def libvirt(self) -> LibvirtState:
        """Return libvirt's state as the fact reads it, of the domains of this test alone."""
        out = self.pair.ssh(self.host, Libvirt().command())
        found = Libvirt().process(out.splitlines())
        assert found is not None
        ours = {name: domain for name, domain in found.domains.items() if name.startswith("agree-")}
        return LibvirtState(host=found.host, domains=ours)

    def carry_out(self, plan: Plan) -> set[str]:
        """Carry out a plan on the machine as `perform` does; return the subjects of which a step failed."""
        script = ["failed=' '"]
        refused = {refusal.subject for refusal in plan.refused}
        for number, step in enumerate(step for step in plan.steps if step.subject not in refused):
            feed = "</dev/null" if step.stdin is None else f"<<'END-{number}'\n{step.stdin}END-{number}"
            script.append(
                f'case "$failed" in *" {step.subject} "*) ;; *)\n'
                f"cat >/run/step <<'END-OF-STEP'\n{step.command}\nEND-OF-STEP\n"
                f'if sh /run/step {feed}\nthen :; else failed="$failed{step.subject} "; fi ;; esac'
            )
        script.append('echo "FAILED$failed"')
        out = self.pair.lab.ssh(self.host, "sh -s", stdin="\n".join(script) + "\n", deadline=300)
        (last,) = (line for line in out.splitlines() if line.startswith("FAILED"))
        return set(last.removeprefix("FAILED").split())


def _view(state: LvmState) -> object:
    return (
        {name: (group.size, group.extent, group.free) for name, group in state.groups.items()},
        {spec: (volume.size, sorted(volume.tags), volume.active) for spec, volume in state.volumes.items()},
        {path: device.signatures for path, device in state.devices.items()},
    )


def volumes_agree(machine: Machine, seed: int, plans: int) -> int:
    """Hold LVM and its model against each other for `plans` random plans; return how many steps they had."""
    chance = random.Random(seed)
    model = ModelLvm(devices=dict(machine.lvm().devices))
    sizes: dict[str, int] = {}
    steps = 0
    for number in range(plans):
        today = START + timedelta(number // 4)
        wanted = [_volume(chance, name, sizes, today) for name in "abcdef" if chance.random() < 0.6]
        state = model.state()
        if number % 2 == 0:
            plan = plan_volumes([machine.group], wanted, state, today)
        else:
            closed = {spec: replace(volume, open=False) for spec, volume in state.volumes.items()}
            plan = plan_retirement(wanted, replace(state, volumes=closed), (), today)
        steps += len(plan.steps)
        failed = machine.carry_out(plan)
        assert failed == _apply(model, plan), f"seed {seed}, plan {number}: {plan}"
        real, believed = _view(machine.lvm()), _view(model.state())
        assert real == believed, f"seed {seed}, plan {number}: {plan}\nreal:  {real}\nmodel: {believed}"
    return steps


def _volume(chance: random.Random, name: str, sizes: dict[str, int], today: date) -> Volume:
    retired = today - timedelta(1) if chance.random() < 0.2 else None
    destroy = today if retired and chance.random() < 0.6 else None
    size = sizes.setdefault(name, chance.randint(1, 6) * EXTENT)
    if chance.random() < 0.3:
        size = sizes[name] = size + chance.randint(1, 3) * EXTENT
    elif chance.random() < 0.1:
        size = chance.randint(1, 150) * EXTENT - chance.randint(0, EXTENT - 1)
    reason = chance.choice(["a test made it", "a test made it", None])
    return Volume(GROUP, name, size, "g", retired, destroy, reason)


def _apply(model: ModelLvm, plan: Plan) -> set[str]:
    refused = {refusal.subject for refusal in plan.refused}
    failed: set[str] = set()
    for step in plan.steps:
        if step.subject in refused | failed:
            continue
        try:
            model.apply(step)
        except CommandError:
            failed.add(step.subject)
    return failed


NAMES = ("agree-a", "agree-b", "agree-c")


def domains_agree(machine: Machine, seed: int, plans: int) -> int:
    """Hold libvirt and its model against each other for `plans` random plans; return how many steps they had.

    Guests are defined, redefined, given and denied autostart, retired; none is started: that takes a quarter of a
    minute each here, and is what every other test of the lab does.
    """
    chance = random.Random(seed)
    for name in NAMES:
        machine.pair.ssh(
            machine.host,
            f"lvs {GROUP}/{name} >/dev/null 2>&1 || lvcreate -q -y -Wn -Zn -L 4M -n {name} "
            f"--addtag {MANAGED} --addtag guest={name} --addtag {FRESH} {GROUP}",
        )
    lvm = machine.lvm()
    model = ModelHost(ModelLvm({GROUP: EXTENT}, dict(lvm.devices), {machine.device: GROUP}, dict(lvm.volumes)))
    steps = 0
    for number in range(plans):
        guests = [_guest(chance, name) for name in NAMES if chance.random() < 0.8]
        places = places_of(guests, model.state(), model.lvm.state(), dict, {guest.name for guest in guests})
        plan = plan_domains(guests, model.state(), model.lvm.state(), places)
        steps += len(plan.steps)
        failed = machine.carry_out(plan)
        assert failed == set(model.apply(plan)), f"seed {seed}, plan {number}: {plan}"
        real = machine.libvirt()
        assert _domains(real) == _domains(model.state()), f"seed {seed}, plan {number}: {plan}"
        again = plan_domains(guests, real, machine.lvm(), places_of(guests, real, machine.lvm(), dict, set(NAMES)))
        assert again.steps == (), f"seed {seed}, plan {number}: {again}"
    return steps


def _guest(chance: random.Random, name: str) -> Guest:
    definition = Definition(
        name=name,
        uuid=uuid_of(name),
        memory=chance.choice([128, 192, 256]) * 2**20,
        vcpus=chance.choice([1, 2]),
        machine=chance.choice(["pc", "pc", "q35"]),
        boot=chance.choice(["disk", "network-then-disk"]),
        disks=(Disk(f"/dev/{GROUP}/{name}", "vda"),),
        interfaces=(Interface(f"52:54:00:aa:00:{chance.randint(1, 3):02x}", "br0"),),
        console=7100 + NAMES.index(name),
    )
    retired = chance.random() < 0.2
    return Guest(definition, autostart=chance.random() < 0.5, runs=False, retired=retired)


def _domains(state: LibvirtState) -> dict[str, tuple[object, ...]]:
    return {name: _facts(domain) for name, domain in state.domains.items()}


def _facts(domain: Domain) -> tuple[object, ...]:
    found = domain.definition
    assert isinstance(found, Definition)
    machine = "q35" if "q35" in found.machine else "pc"
    return domain.uuid, domain.state, domain.autostart, domain.persistent, replace(found, machine=machine)

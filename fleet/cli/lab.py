"""`fleet lab`: the machines and stand-ins of the lab, from the keyboard."""

import os
import selectors
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import click

from tests.lab import images
from tests.lab.host import LabError
from tests.lab.lab import Lab
from tests.lab.openbsd import root
from tests.lab.qmp import connect
from tests.render.parsers import parsers

_KEPT_VARIABLES = ("DEBIAN_MIRROR", "XDG_CACHE_HOME")
_BELL_AFTER = 10.0
_END_OF_CONSOLE = b"\x1d"


@contextmanager
def _said() -> Iterator[None]:
    """Turn what the lab cannot do into click's one-line error, and ring the bell after long work."""
    began = time.monotonic()
    try:
        yield
    except LabError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if sys.stderr.isatty() and time.monotonic() - began > _BELL_AFTER:
            click.echo("\a", nl=False, err=True)


def _as_root() -> None:
    """Go on as root: start the same command over under sudo if the process is an ordinary user's."""
    if os.geteuid() != 0:
        kept = [f"{name}={os.environ[name]}" for name in _KEPT_VARIABLES if name in os.environ]
        os.execvp("sudo", ["sudo", "env", *kept, sys.executable, *sys.argv])  # noqa: S606


@click.group()
@click.option("--index", default=0, show_default=True, type=click.IntRange(0, 255), help="The lab's number.")
@click.pass_context
def lab(context: click.Context, index: int) -> None:
    """Machines of the fleet on this computer."""
    context.obj = index


@lab.command()
@click.option("--bare", is_flag=True, help="Start the machines from a freshly installed system, without packages.")
@click.argument("what", nargs=-1)
@click.pass_obj
def up(index: int, bare: bool, what: tuple[str, ...]) -> None:
    """Make what is missing, start what is off, leave alone what runs.

    WHAT is ubuntu (the machines), openbsd (all stand-ins) or names of stand-ins; the whole fleet if nothing is named.
    """
    _as_root()
    with _said():
        begun = Lab(index, image="bare" if bare else "packages")
        names, machines = _wanted(begun, what)
        begun.up(names, machines=machines)
        if machines and not bare:
            click.echo("made from an image that has the role's packages in it; make run BARE=1 starts without them")
        _print_status(begun)


def _wanted(of: Lab, what: tuple[str, ...]) -> tuple[list[str], bool]:
    """Return the names of the stand-ins that were asked for, and whether the machines were."""
    for word in what:
        if word not in (*of.stand_ins.hosts, "ubuntu", "openbsd"):
            known = ", ".join(of.stand_ins.hosts)
            raise LabError(f"{word}: neither ubuntu, openbsd nor a stand-in ({known})")
    if not what or "openbsd" in what:
        return list(of.stand_ins.hosts), not what or "ubuntu" in what
    return [word for word in of.stand_ins.hosts if word in what], "ubuntu" in what


@lab.command()
@click.option("--wipe", is_flag=True, help="Forget the disks, keys and saved states too.")
@click.pass_obj
def down(index: int, wipe: bool) -> None:
    """Switch everything off, also what a crash left behind."""
    _as_root()
    with _said():
        Lab(index).down(wipe=wipe)


@lab.command()
@click.pass_obj
def status(index: int) -> None:
    """Say which machines run."""
    with _said():
        _print_status(Lab(index))


def _print_status(of: Lab) -> None:
    for name, state in of.status().items():
        click.echo(f"{name}: {state}")
    if of.memory_factor != 1:
        click.echo(f"memory: {of.memory_factor} of the real one, because vm.overcommit_memory is 2 here")


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ssh(index: int, name: str, command: tuple[str, ...]) -> None:
    """Log in to a machine as root or to a stand-in as deploy, or run a command there."""
    with _said():
        argv = Lab(index).ssh_argv(name, *command)
    os.execvp(argv[0], argv)  # noqa: S606


@lab.command()
@click.argument("name")
@click.pass_obj
def console(index: int, name: str) -> None:
    """Attach to a machine's serial console; Ctrl-] ends it."""
    with _said():
        path = Lab(index).console_socket(name)
        try:
            connection = connect(path, deadline=3600)
        except OSError as error:
            raise LabError(f"{name}: no console: {error}") from error
    click.echo("Ctrl-] ends.", err=True)
    terminal = sys.stdin.fileno()
    settings = termios.tcgetattr(terminal) if os.isatty(terminal) else None
    try:
        if settings:
            tty.setraw(terminal)
        with connection, selectors.DefaultSelector() as ready:
            ready.register(connection, selectors.EVENT_READ)
            ready.register(terminal, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    data = os.read(key.fd, 4096)
                    if not data or (key.fd == terminal and _END_OF_CONSOLE in data):
                        return
                    if key.fd == terminal:
                        connection.sendall(data)
                    else:
                        os.write(sys.stdout.fileno(), data)
    finally:
        if settings:
            termios.tcsetattr(terminal, termios.TCSADRAIN, settings)


@lab.command()
@click.pass_obj
def unmodelled(index: int) -> None:
    """Say what the OpenBSD stand-ins do not model, and what of it was asked of those that are installed."""
    for line in root.not_modelled():
        click.echo(line)
    asked = Lab(index).stand_ins.unmodelled()
    for name, lines in asked.items():
        for line in lines:
            click.echo(f"asked of {name}: {line}")
    if asked:
        raise SystemExit(1)


@lab.command()
@click.option("--bare", is_flag=True, help="Only the image without the roles' packages.")
def build(bare: bool) -> None:
    """Build the images and the repository of packages."""
    with _said():
        try:
            click.echo(images.bare() if bare else images.packages_image())
            if not bare:
                click.echo(root.system())
                click.echo(parsers())
        except LabError:
            if os.geteuid() == 0:
                raise
            _as_root()

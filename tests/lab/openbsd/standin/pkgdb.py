"""Packages of a stand-in: their names, the mirror's descriptions, what is installed (contract 2.1, 2.5, 2.6, 10).

A mirror is OpenBSD's tree of directories, each with one `packages.json` of descriptions in the place of archives;
`tests/lab/openbsd/mirror.py` writes them. What a description says is really installed: files, samples, users.
"""

import fcntl
import hashlib
import http.client
import json
import operator
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from . import release
from .place import root
from .program import own

NOT_MODELLED = (
    "pkg_*: archives and signatures: a mirror has descriptions, of which some are unsigned",
    "pkg_*: shared libraries, @exec lines, file systems that are full",
    "packages: daemons of packages run and do nothing",
)
DATABASE = "/var/db/pkg"
INDEX = "packages.json"
LAUNCHER = (
    "#!/usr/lib/standin/python -IS\n"
    'import sys; sys.path.insert(0, "/usr/lib/standin"); from standin.idle import main; sys.exit(main(sys.argv[1:]))\n'
)
"""The text of a package's daemon."""

_DEADLINE = 10.0
_RELATIONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq}


@dataclass(frozen=True)
class Item:
    """A file of a package: text, a link to a program of the root, or a daemon that does nothing."""

    text: str = ""
    program: str = ""
    daemon: bool = False
    owner: str = "root"
    group: str = "bin"
    mode: str = "0644"


@dataclass(frozen=True)
class Package:
    """A package as the mirror describes it; the fields are those of a packing list.

    Args:
        name: with version and flavours.
        pkgpath: such as ``databases/redis/bsd``.
        comment: one line.
        branch: whether the last part of `pkgpath` is a branch.
        coexists: whether it may be installed beside another of the same stem.
        unsigned: whether its signature is missing.
        depends: specs such as ``oath-toolkit-*``.
        groups: ``name:gid``.
        users: ``name:uid:group:class:comment:home:shell``.
        directories: ``path:owner:group:mode``.
        files: by path.
        samples: by the path they are copied to where nothing is.
        message: printed after the first installation.
    """

    name: str
    pkgpath: str
    comment: str
    branch: bool = False
    coexists: bool = False
    unsigned: bool = False
    depends: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    files: Mapping[str, Item] = field(default_factory=dict)
    samples: Mapping[str, Item] = field(default_factory=dict)
    message: str = ""

    @property
    def stem(self) -> str:
        """The name without version and flavours."""
        return split(self.name)[0]

    @property
    def version(self) -> str:
        """The version with its package suffixes, such as ``3.4.1p0``."""
        return split(self.name)[1]

    @property
    def flavours(self) -> tuple[str, ...]:
        """The flavours in the order of the name."""
        return split(self.name)[2]

    @property
    def fuzzy(self) -> str:
        """The form of `pkg_info -z`, such as ``php--%8.3``."""
        last = f"%{self.pkgpath.rpartition('/')[2]}" if self.branch else ""
        return f"{self.stem}--{'-'.join(self.flavours)}{last}"


@dataclass(frozen=True)
class Installed:
    """A package that is there.

    Args:
        package: as it was installed.
        manual: whether somebody asked for it by name.
        needs: names of the packages that satisfy its dependencies.
        checksums: SHA-256 of the samples as they were copied, by path.
    """

    package: Package
    manual: bool
    needs: tuple[str, ...] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)


def split(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Take a package's name apart: the version begins with a digit, flavours follow it.

    Args:
        name: such as ``rsync-3.4.1p0-iconv``.

    Returns:
        Stem, version (empty for a stem alone) and flavours.
    """
    match = re.fullmatch(r"(.+?)-(\d[^-]*)((?:-\D[^-]*)*)", name)
    if match is None:
        return name, "", ()
    return match[1], match[2], tuple(word for word in match[3].split("-") if word)


def order(version: str) -> tuple[tuple[int, ...], str, int]:
    """Return what versions are sorted by: the numbers, the letters after them, the package's own p suffix."""
    match = re.fullmatch(r"(.*?)(?:p(\d+))?(?:v(\d+))?", version)
    assert match is not None
    epoch = int(match[3] or 0)
    numbers = tuple(int(word) for word in re.findall(r"\d+", match[1]))
    return (epoch, *numbers), re.sub(r"[\d.]", "", match[1]), int(match[2] or -1)


@dataclass(frozen=True)
class Wanted:
    """An argument of pkg_add(1): a stem with or without flavours and branch, or a whole name."""

    text: str
    stem: str
    flavours: frozenset[str] | None
    branch: str | None
    exact: bool

    def fits(self, package: Package) -> bool:
        """Tell whether a package is one that this argument could mean."""
        if self.exact:
            return package.name == self.text
        if package.stem != self.stem:
            return False
        if self.flavours is not None and frozenset(package.flavours) != self.flavours:
            return False
        return self.branch is None or package.pkgpath.endswith(f"/{self.branch}")


def wanted(text: str) -> Wanted:
    """Read an argument of pkg_add(1).

    Args:
        text: ``stem``, ``stem--``, ``stem--flavour``, ``stem%branch``, both, or ``stem-version-flavour``.
    """
    front, percent, branch = text.partition("%")
    stem, dashes, flavours = front.partition("--")
    if dashes:
        return Wanted(text, stem, frozenset(flavours.split("-")) - {""}, branch if percent else None, exact=False)
    exact = split(front)[1] != ""
    return Wanted(text, split(front)[0], None, branch if percent else None, exact=exact)


def spec_fits(spec: str, name: str) -> bool | None:
    """Tell whether a name satisfies a spec; packages-specs(7) as far as contract 2.3 has it.

    Args:
        spec: ``stem-*``, ``stem->=VERSION`` (also ``>``, ``<``, ``<=``, ``=``, with commas), or a whole name.
        name: of a package.

    Returns:
        Whether it does; None for what is no spec.
    """
    stem, version, _ = split(name)
    if split(spec)[1]:
        return spec == name
    match = re.fullmatch(r"([^*<>=]+)-(\*|[<>=][^-*]*)", spec)
    if match is None or (match[2] != "*" and match[1] == stem and not version):
        return None
    if match[2] == "*" or match[1] != stem:
        return match[1] == stem
    relations = [re.fullmatch(r"(>=|<=|>|<|=)(\d.*)", part) for part in match[2].split(",")]
    if None in relations:
        return None
    return all(_RELATIONS[found[1]](order(version), order(found[2])) for found in relations if found)


def decode(data: Mapping[str, object]) -> Package:
    """Make a package of its JSON object."""
    values = dict(data)
    for name in ("files", "samples"):
        items = values.get(name, {})
        assert isinstance(items, dict)
        values[name] = {path: Item(**item) for path, item in items.items()}
    for name in ("depends", "groups", "users", "directories"):
        found = values.get(name, ())
        assert isinstance(found, list | tuple)
        values[name] = tuple(found)
    return Package(**values)  # type: ignore[arg-type]


def encode(package: Package) -> dict[str, object]:
    """Make the JSON object of a package."""
    return asdict(package)


class Mirror:
    """The packages that can be installed, from one or more directories; a dead one says so and has none."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self.packages: list[tuple[str, Package]] = []
        self.alive = False
        for address in addresses:
            self._load(address)

    def _load(self, address: str) -> None:
        try:
            text = _fetch(address)
        except OSError as error:
            print(f"{address}: ftp: {error}", file=sys.stderr)
            print(f"{address}: empty", file=sys.stderr)
            return
        self.alive = True
        known = {package.name for _, package in self.packages}
        found = [decode(data) for data in json.loads(text)["packages"]]
        self.packages += [(address, package) for package in found if package.name not in known]

    def find(self, argument: Wanted) -> list[Package]:
        """Return what an argument could mean; of one stem, flavour and branch the newest."""
        newest: dict[tuple[str, frozenset[str], str], Package] = {}
        for _, package in self.packages:
            if argument.fits(package):
                key = (package.stem, frozenset(package.flavours), package.pkgpath)
                if key not in newest or order(newest[key].version) < order(package.version):
                    newest[key] = package
        return list(newest.values())

    def satisfying(self, spec: str) -> list[Package]:
        """Return the packages that satisfy a dependency, the newest first."""
        found = [package for _, package in self.packages if spec_fits(spec, package.name)]
        return sorted(found, key=lambda package: order(package.version), reverse=True)

    def address_of(self, package: Package) -> str:
        """Return the directory that a package comes from."""
        return next(address for address, found in self.packages if found.name == package.name)


def _fetch(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme in ("", "file"):
        path = root(parts.path) / INDEX
        try:
            return path.read_text()
        except OSError as error:
            raise OSError(f"{path.parent}: {error.strerror}") from None
    maker = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = maker(parts.hostname or "", parts.port, timeout=_DEADLINE)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/{INDEX}")
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"Error retrieving {address}: {answer.status} {answer.reason}")
        return answer.read().decode()
    except TimeoutError:
        raise OSError("connect: Operation timed out") from None
    except ConnectionError as error:
        raise OSError(f"connect: {error.strerror}") from None
    except OSError as error:
        text = str(error) if error.strerror is None or error.errno is None else error.strerror
        raise OSError(text if error.errno is None else f"{parts.hostname}: {text}") from None
    finally:
        connection.close()


def addresses(*, snapshots: bool) -> list[str]:
    """Return the directories to look in (contract 2.5).

    Args:
        snapshots: whether ``-D snap`` was given.
    """
    for variable in ("TRUSTED_PKG_PATH", "PKG_PATH"):
        if os.environ.get(variable):
            return [os.environ[variable]]
    try:
        lines = root("/etc/installurl").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    base = next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    if not base:
        return []
    base = base.rstrip("/")
    if snapshots or release.suffix() in ("-current", "-beta"):
        return [f"{base}/snapshots/packages/{release.ARCH}/"]
    version = f"{base}/{release.number()}"
    return [f"{version}/packages-stable/{release.ARCH}/", f"{version}/packages/{release.ARCH}/"]


def installed() -> dict[str, Installed]:
    """Return the packages that are there, by name, sorted."""
    found = {}
    directory = root(DATABASE)
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_dir():
            data = json.loads((path / "+STANDIN").read_text())
            found[path.name] = Installed(
                decode(data["package"]), data["manual"], tuple(data["needs"]), data["checksums"]
            )
    return found


@contextmanager
def locked() -> Iterator[None]:
    """Hold the database as the only one; a second one says that it waits, and does."""
    path = root(DATABASE)
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Package database already locked... awaiting release... ", end="", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
            print("done!", file=sys.stderr)
        yield


def record(entry: Installed) -> None:
    """Write a package's entry in the database: the packing list as pkg_create(1) has it, and our own data."""
    package = entry.package
    directory = root(DATABASE) / package.name
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f"@name {package.name}", *(["@option is-branch"] if package.branch else [])]
    lines += ["@option manual-installation"] if entry.manual else []
    lines += [f"@comment pkgpath={package.pkgpath} ftp=yes", f"@arch {release.ARCH}"]
    lines += [f"@depend {spec}:{name}" for spec, name in zip(package.depends, entry.needs, strict=True)]
    lines += [f"@newgroup {group}" for group in package.groups] + [f"@newuser {user}" for user in package.users]
    lines += ["@cwd /", *(path.lstrip("/") for path in package.files)]
    lines += [f"@sample {path}" for path in package.samples]
    (directory / "+CONTENTS").write_text("".join(f"{line}\n" for line in lines))
    (directory / "+DESC").write_text(f"{package.comment}\n")
    data = {"package": encode(package), "manual": entry.manual, "needs": entry.needs, "checksums": entry.checksums}
    (directory / "+STANDIN").write_text(json.dumps(data))


def _number(database: str, name: str) -> int:
    for line in root(database).read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2])
    raise LookupError(f"{name} is not in {database}")


def _has(database: str, name: str) -> bool:
    path = root(database)
    return path.exists() and any(line.split(":")[0] == name for line in path.read_text().splitlines())


def _write(path: str, item: Item) -> None:
    place = root(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or place.exists():
        place.unlink()
    if item.program:
        place.symlink_to(f"/usr/lib/standin/bin/{item.program}")
        return
    place.write_text(LAUNCHER if item.daemon else item.text)
    own(place, _number("/etc/passwd", item.owner), _number("/etc/group", item.group))
    place.chmod(int(item.mode, 8))


def _example(path: str) -> str:
    return f"/usr/local/share/examples/{path.removeprefix('/etc/').lstrip('/')}"


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _command(name: str, *arguments: str) -> None:
    """Change accounts with the stand-in's own commands; their remarks on a home directory are not pkg_add's."""
    argv = [str(root(f"/usr/sbin/{name}")), *arguments]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stdout}")


def _people(package: Package) -> None:
    for group in package.groups:
        name, gid = group.split(":")
        if not _has("/etc/group", name):
            _command("groupadd", "-g", gid, name)
    for user in package.users:
        name, uid, group, login_class, comment, home, shell = user.split(":")
        if not _has("/etc/passwd", name):
            options = ["-u", uid, "-g", group, "-L", login_class, "-c", comment, "-d", home, "-s", shell]
            _command("useradd", *options, "-p", "*" * 13, name)


def put(package: Package, *, manual: bool, needs: Sequence[str], replaced: Installed | None = None) -> None:
    """Install a package's files, users and entry.

    Args:
        package: what to install.
        manual: whether it was asked for by name.
        needs: names of the packages that satisfy its dependencies.
        replaced: the installed package that it takes the place of.
    """
    _people(package)
    for directory in package.directories:
        path, owner, group, mode = directory.split(":")
        place = root(path)
        place.mkdir(parents=True, exist_ok=True)
        own(place, _number("/etc/passwd", owner), _number("/etc/group", group))
        place.chmod(int(mode, 8))
    before = dict(replaced.checksums) if replaced else {}
    for path, item in package.files.items():
        _write(path, item)
    checksums = {}
    for path, item in package.samples.items():
        _write(_example(path), Item(text=item.text))
        place = root(path)
        if not place.exists() or (path in before and _sum(place) == before[path]):
            _write(path, item)
        checksums[path] = hashlib.sha256(item.text.encode()).hexdigest()
    if replaced:
        gone = {*replaced.package.files} - {*package.files}
        for path in gone:
            root(path).unlink(missing_ok=True)
        _forget(replaced.package.name)
    record(Installed(package, manual, tuple(needs), checksums))


def _forget(name: str) -> None:
    directory = root(DATABASE) / name
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def take(entry: Installed, *, extra: bool) -> list[str]:
    """Remove a package's files and entry.

    Args:
        entry: what to remove.
        extra: whether changed configuration, users and data go as well (`pkg_delete -c`).

    Returns:
        What pkg_delete(1) says should also be done.
    """
    package = entry.package
    advice = []
    for path in package.files:
        root(path).unlink(missing_ok=True)
    for path in package.samples:
        root(_example(path)).unlink(missing_ok=True)
        place = root(path)
        if not place.exists():
            continue
        if extra or _sum(place) == entry.checksums[path]:
            place.unlink()
        else:
            advice.append(f"You should also remove {path} (which was modified)")
    for directory in reversed(package.directories):
        advice += _take_directory(directory.split(":")[0], extra=extra)
    for command, database, lines in (
        ("userdel", "/etc/passwd", package.users),
        ("groupdel", "/etc/group", package.groups),
    ):
        for name in (line.split(":")[0] for line in lines):
            if not extra:
                advice.append(f"You should also run /usr/sbin/{command} {name}")
            elif _has(database, name):
                _command(command, name)
    _forget(package.name)
    return advice


def _take_directory(path: str, *, extra: bool) -> list[str]:
    place = root(path)
    if not place.is_dir():
        return []
    if extra:
        _remove_tree(place)
    elif any(place.iterdir()):
        return [f"You should also remove {path}"]
    else:
        place.rmdir()
    return []


def _remove_tree(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        for path in place.iterdir():
            _remove_tree(path)
        place.rmdir()
    else:
        place.unlink(missing_ok=True)

"""`fleet render`: every file of every host as it would be deployed, for review, parsers and comparison of commits."""

from __future__ import annotations

import difflib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from fleet.load import ROOT, load
from fleet.model.service import File
from fleet.model.site import Fleet, Site


def rendered(fleet: Fleet, sites: tuple[Site, ...]) -> Iterator[tuple[str, File]]:
    """Yield each host's name with each of its files and documents. Pure: no network, no host, no clock."""
    for site in sites:
        for host in site.hosts:
            for service in host.services:
                for files in service.renders(host, fleet):
                    yield from ((host.name, file) for file in files.files)
                yield from ((host.name, file) for file in service.documents(host, fleet))


def tree(site: str, only: str | None = None) -> dict[str, str]:
    """Return the text of each file by ``HOST/path``; the first line of an entry says owner, group and mode.

    Arguments: `only`, one host. Raises SystemExit if the site has no host of that name.
    """
    fleet, sites = load(site)
    names = {host.name for each in sites for host in each.hosts}
    if only is not None and only not in names:
        raise SystemExit(f"{site}: no host {only!r}: there are {', '.join(sorted(names))}")
    return {f"{name}{file.path}": file.text for name, file in rendered(fleet, sites) if only in (None, name)}


@click.command()
@click.argument("host", required=False)
@click.option("--site", default="home", show_default=True, help="The inventory to render.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the files below this folder (made anew).")
@click.option("--against", metavar="REV", help="Show what this tree changes to which host, compared with a commit.")
def render(host: str | None, site: str, out: Path | None, against: str | None) -> None:
    """Render every file of HOST, or of all hosts of the site."""
    files = tree(site, host)
    if against is not None:
        _compare(_tree_of(against, site, host), files, against)
        return
    if out is None:
        for path, text in sorted(files.items()):
            click.echo(f"==> {path}")
            click.echo(text, nl=False)
        return
    _write(files, out)
    click.echo(f"{len(files)} files below {out}")


def _write(files: dict[str, str], out: Path) -> None:
    if out.exists():
        if any(out.iterdir()) and not (out / ".rendered").exists():
            raise SystemExit(f"{out} has files that were not rendered; name an empty folder")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / ".rendered").write_text("made by fleet render; removed by the next one\n")
    for path, text in files.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _tree_of(revision: str, site: str, host: str | None) -> dict[str, str]:
    """Render another commit in a folder of its own, with that commit's code."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise SystemExit(f"no commit {revision!r}: {archive.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder / "tree", filter="data")
        out = folder / "out"
        code = "from fleet.cli import main; main()"
        arguments = ["render", *([host] if host else []), "--site", site, "--out", str(out)]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=folder / "tree",
            env={"PYTHONPATH": str(folder / "tree"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{revision} does not render: {done.stderr.strip()}")
        return {
            str(path.relative_to(out)): path.read_text()
            for path in out.rglob("*")
            if path.is_file() and path.name != ".rendered"
        }


def _compare(old: dict[str, str], new: dict[str, str], revision: str) -> None:
    changed: dict[str, int] = {}
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) == new.get(path):
            continue
        changed[path.split("/")[0]] = changed.get(path.split("/")[0], 0) + 1
        before = old.get(path, "").splitlines(keepends=True)
        after = new.get(path, "").splitlines(keepends=True)
        click.echo("".join(difflib.unified_diff(before, after, f"{revision}:{path}", path)), nl=False)
    if not changed:
        click.echo(f"no host changes against {revision}")
    for name, count in sorted(changed.items()):
        click.echo(f"{name}: {count} file{'' if count == 1 else 's'}")

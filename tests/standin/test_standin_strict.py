"""The front of the small tools (contract 9 and 0.3 item 10): what OpenBSD's tools have passes, all else is refused."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.openbsd import strict

TOOLS = (
    "ls grep sed awk find sort head tail cut tr cat chmod cp mkdir xargs tar touch mktemp sleep df du uniq date env rm "
    "expr getent ps"
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the compiled program under the names of the tools."""
    place = tmp_path_factory.mktemp("strict")
    strict.compile_to(place / "strict")
    for name in (*strict.names(), "nosuch"):
        (place / name).symlink_to("strict")
    return place


@pytest.fixture
def run(program: Path, tmp_path: Path) -> Run:
    real = tmp_path / "bin"
    real.mkdir()
    for name in TOOLS.split():
        found = next(Path(d) / name for d in ("/usr/bin", "/bin", "/usr/sbin") if (Path(d) / name).exists())
        (real / name).symlink_to(found)
    (tmp_path / "var/standin").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    environment = {"PATH": "/usr/bin:/bin", "STANDIN_ROOT": str(tmp_path), "STANDIN_BIN": str(real), "LC_ALL": "C"}

    def call(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program / argv[0], *argv[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path / "work",
            timeout=20,
            check=False,
        )

    return call


def _record(tmp_path: Path) -> str:
    record = tmp_path / "var/standin/unmodelled"
    return record.read_text() if record.exists() else ""


@pytest.mark.parametrize(
    ("argv", "stdin", "stdout"),
    [
        (["grep", "-c", "a.*b"], "axb\nc\n", "1\n"),
        (["egrep", "a+|c"], "aa\nc\nd\n", "aa\nc\n"),
        (["grep", "-E", "a+|c"], "aa\nc\nd\n", "aa\nc\n"),
        (["fgrep", r"\w"], "w\n\\w\n", "\\w\n"),
        (["grep", "-A1", "-e", "a"], "a\nb\nc\n", "a\nb\n"),
        (["sed", "-n", "s/a/b/p"], "a\nc\n", "b\n"),
        (["sed", "-E", "s/(a|c)+/x/"], "acb\n", "xb\n"),
        (["sed", "-e", "1d", "-e", "s/b/c/"], "a\nb\n", "c\n"),
        (["awk", "-F:", "-v", "x=1", "{ print x, $2 }"], "a:b\n", "1 b\n"),
        (["sort", "-t:", "-k2,2n", "-u"], "a:2\nb:1\n", "b:1\na:2\n"),
        (["head", "-1"], "a\nb\n", "a\n"),
        (["tail", "-n", "+2"], "a\nb\n", "b\n"),
        (["cut", "-d:", "-f2"], "a:b\n", "b\n"),
        (["tr", "-d", "a"], "ab\n", "b\n"),
        (["xargs", "-I{}", "echo", "{}."], "a\nb\n", "a.\nb.\n"),
        (["xargs", "-0", "-n", "1", "echo", "-n"], "a\0", "a"),
        (["expr", "1", "+", "2"], "", "3\n"),
        (["getent", "passwd", "root"], "", Path("/etc/passwd").read_text().splitlines()[0] + "\n"),
        (["env", "-i", "A=b", "/usr/bin/env"], "", "A=b\n"),
    ],
)
def test_what_openbsd_has_is_carried_out(run: Run, argv: list[str], stdin: str, stdout: str, tmp_path: Path) -> None:
    done = run(*argv, stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr) == (0, stdout, "")
    assert _record(tmp_path) == ""


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["ls", "--color"], "long option --color"),
        (["ls", "-Z"], "option -Z is not OpenBSD's"),
        (["ls", "-T"], "option -T of OpenBSD has no counterpart"),
        (["ls", "-s"], "option -s of OpenBSD has no counterpart"),
        (["cp", "-u", "a", "b"], "option -u is not OpenBSD's"),
        (["mkdir", "-v", "a"], "option -v is not OpenBSD's"),
        (["grep", "-P", "a"], "option -P is not OpenBSD's"),
        (["grep", "--line-buffered", "a"], "long option --line-buffered"),
        (["grep", r"a\+"], r"\+ is GNU's in a basic regular expression"),
        (["grep", "-e", r"a\|b"], r"\| is GNU's in a basic regular expression"),
        (["grep", "-E", r"\bword"], r"\b is GNU's in a regular expression"),
        (["egrep", r"\w+"], r"\w is GNU's in a regular expression"),
        (["grep", "[[:<:]]a"], "word limits [[:<:]] and [[:>:]]"),
        (["sed", r"s/a\+/b/"], r"\+ is GNU's in a basic regular expression"),
        (["sed", "-n", "-e", r"s/a\?/b/p"], r"\? is GNU's in a basic regular expression"),
        (["sed", "-E", r"s/\w/b/"], r"\w is GNU's in a regular expression"),
        (["sed", r"s/a/\U&/"], r"\U is GNU's in a script of sed"),
        (["sed", r"s/ /\t/"], r"\t is GNU's in a script of sed"),
        (["sed", "-s", "p"], "option -s is not OpenBSD's"),
        (["sed", "-a", "p"], "option -a of OpenBSD has no counterpart"),
        (["find", ".", "-printf", "%p"], "find has no -printf"),
        (["find", ".", "-regex", ".*"], "find has no -regex"),
        (["find", ".", "-newermt", "now"], "find has no -newermt"),
        (["find", "-name", "a"], "option -n is not OpenBSD's"),
        (["find"], "find wants a path"),
        (["find", ".", "-size", "+1M"], "find -size +1M"),
        (["find", ".", "-perm", "/222"], "find -perm /222"),
        (["xargs", "-d", "x"], "option -d is not OpenBSD's"),
        (["sort", "-V", "--debug"], "long option --debug"),
        (["tail", "-F", "a"], "option -F is not OpenBSD's"),
        (["head", "-c", "3"], "option -c is not OpenBSD's"),
        (["uniq", "-c"], "option -c of OpenBSD has no counterpart"),
        (["tar", "-cJf", "a.tar", "b"], "option -J is not OpenBSD's"),
        (["tar", "cjf", "a.tar", "b"], "option -j has no counterpart"),
        (["tar", "-cf", "a.tar", "--exclude", "b", "c"], "option --exclude is not OpenBSD's, or has no counterpart"),
        (["touch", "-d", "yesterday", "a"], "touch -d wants CCYY-MM-DDThh:mm:SS[.frac][Z]"),
        (["mktemp", "a.XXX"], "a template ends in six X"),
        (["mktemp", "-t", "a"], "option -t of OpenBSD has no counterpart"),
        (["sleep", "1m"], "sleep 1m"),
        (["chmod", "--reference=a", "b"], "long option --reference=a"),
        (["grep", "x", "-v"], "option -v behind an operand"),
        (["sort", "f", "-u"], "option -u behind an operand"),
        (["mktemp", "-p", "/tmp", "a/XXXXXX"], "-p and a template with directories"),
        (["find", ".", "-not", "-name", "a"], "find has no -not"),
        (["getent", "shadow"], "getent has no database shadow"),
        (["dd", "if=/dev/zero", "of=f", "iflag=direct"], "dd's operand iflag=direct"),
        (["expr", "length", "abc"], "expr's word length is GNU's"),
        (["ps", "--forest"], "long option --forest"),
        (["ps", "-f"], "option -f is not OpenBSD's"),
        (["nosuch"], "no such tool is known"),
    ],
)
def test_what_openbsd_has_not_is_refused_and_recorded(run: Run, argv: list[str], why: str, tmp_path: Path) -> None:
    done = run(*argv)
    line = f"standin: not modelled: {' '.join(argv)}: {why}\n"
    assert (done.returncode, done.stdout, done.stderr) == (99, "", line)
    assert _record(tmp_path) == line


def test_sed_scripts_of_files_are_looked_at(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work/script").write_text("s/a\\+/b/\n")
    assert run("sed", "-n", "-f", "script").returncode == 99
    assert run("sed", "-nfscript").returncode == 99


def test_sed_has_no_gnu_commands(run: Run) -> None:
    assert run("sed", "a text", stdin="x\n").returncode == 1
    assert run("sed", "0,/x/d", stdin="x\n").returncode == 1
    assert run("sed", "a\\\ntext", stdin="x\n").stdout == "x\ntext\n"


def test_sed_in_place(run: Run, tmp_path: Path) -> None:
    """Contract 9: a suffix is attached, as GNU's; `-i ''` is a file of no name."""
    file = tmp_path / "work/f"
    file.write_text("a\n")
    assert run("sed", "-i", "s/a/b/", "f").returncode == 0
    assert run("sed", "-i.bak", "s/b/c/", "f").returncode == 0
    assert (file.read_text(), (tmp_path / "work/f.bak").read_text()) == ("c\n", "b\n")
    assert run("sed", "-i", "", "s/c/d/", "f").returncode != 0
    assert file.read_text() == "c\n"


def test_options_end_at_the_first_operand(run: Run) -> None:
    """getopt(3) does not look for options behind operands, as GNU's does."""
    assert run("ls", "nothing", "-l").stderr.count("No such file") == 2
    assert run("head", "nothing", "-n1").stderr.count("No such file") == 2


def test_find_and_its_programs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work/a b").touch()
    assert run("find", ".", "-type", "f", "-name", "a*", "-print0").stdout == "./a b\0"
    assert run("find", ".", "-type", "f", "!", "-empty").stdout == ""
    assert (
        run("find", ".", "-type", "f", "-exec", "echo", "--long", "-printf", "{}", ";").stdout
        == "--long -printf ./a b\n"
    )
    assert run("find", ".", "-type", "f", "-exec", "echo", "{}", "+", "-o", "-name", ".").stdout == "./a b\n"
    assert run("find", ".", "-exec", "echo", "{}", "+", "-printf", "x").returncode == 99


def test_the_superuser_sees_hidden_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work/.hidden").touch()
    assert run("ls").stdout == (".hidden\n" if os.geteuid() == 0 else "")


def test_sizes_are_in_blocks_of_512_bytes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work/f").write_bytes(b"x" * 65536)
    blocks = int(run("du", "f").stdout.split()[0])
    assert blocks == 2 * int(run("du", "-k", "f").stdout.split()[0])
    assert run("df", ".").stdout.split()[1] == "512-blocks"
    assert run("df", "-k", ".").stdout.split()[1] == "1024-blocks"


def test_grep_after_the_end_of_options(run: Run) -> None:
    assert run("grep", "--", "-v", stdin="-v\n").stdout == "-v\n"
    assert run("grep", "-e", "-v", "-", stdin="-v\n").stdout == "-v\n"


def test_modes_and_archives(run: Run, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "f").write_text("x")
    assert run("chmod", "-w", "f").returncode == 0
    assert (work / "f").stat().st_mode & 0o777 == 0o444
    assert run("tar", "-czf", "a.tgz", "-C", str(work), "f").returncode == 0
    (work / "f").unlink()
    assert run("tar", "xzf", "a.tgz").returncode == 0
    assert (work / "f").read_text() == "x"
    assert run("touch", "-d", "2026-01-02T03:04:05Z", "f").returncode == 0
    assert int((work / "f").stat().st_mtime) == 1767323045

"""Accounts and crontabs of an OpenBSD host, on the stand-in's user(8) and crontab(1): an empty second run."""

from pathlib import Path
from typing import Any

import pytest

from facts.openbsd.accounts import Accounts
from facts.openbsd.crontab import Crontabs
from fleet.model.service import Account, Group, Job, LoginClass
from operations.openbsd.accounts import NO_PASSWORD, plan_accounts
from operations.openbsd.jobs import plan_jobs
from tests.unit.openbsd.scripted import OnStandIn

HASH = "$2b$10$" + "a" * 53
MASTER = f"""\
root:{HASH}:0:0:daemon:0:0:Charlie &:/root:/bin/ksh
bert:{HASH}:1001:1001::0:0:Bert:/home/bert:/bin/ksh
"""
GROUP = "wheel:*:0:root,bert\nbert:*:1001:\nwsrc:*:9:\n"
LOGIN_CONF = (
    "default:\\\n\t:auth=passwd:\\\n\t:tc=auth-defaults:\n\nauth-defaults:auth=passwd:\ndaemon:\\\n\t:tc=default:\n"
)
TOTP = LoginClass(name="totp", capabilities=("auth-ssh=-totp",))
SYSTEM = "SHELL=/bin/sh\n0\t*\t*\t*\t*\t/usr/bin/newsyslog\n"
COMMANDS = {
    **dict.fromkeys(("useradd", "usermod", "groupadd", "pwd_mkdb"), "users"),
    "cap_mkdb": "login_conf",
    "sha256": "digest",
    "crontab": "crontab",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnStandIn:
    root = tmp_path / "root"
    for folder in ("etc/skel", "home", "var/cron/tabs", "var/db", "root"):
        (root / folder).mkdir(parents=True)
    monkeypatch.setenv("STANDIN_ROOT", str(root))
    found = OnStandIn(root, COMMANDS)
    found.file("/etc/master.passwd", MASTER, 0o600)
    found.file("/etc/group", GROUP)
    found.file("/etc/login.conf", LOGIN_CONF)
    found.fake_owners()
    found.fake("id", 'grep -q "^$2:" "$STANDIN_ROOT/etc/master.passwd"')
    return found


def read(host: OnStandIn, wanted: Any) -> Any:
    fact = Accounts()
    return host.read(fact, fact.command([TOTP.name], [it.name for it in wanted]))


def converge(host: OnStandIn, classes: Any, groups: Any, wanted: Any) -> Any:
    first = plan_accounts(classes, groups, wanted, read(host, wanted))
    failed = host.perform(first)
    second = plan_accounts(classes, groups, wanted, read(host, wanted))
    assert [step.label for step in second.steps if step.subject not in failed] == []
    return [f"{step.subject}: {step.label}" for step in first.steps], failed


def test_people_come_change_and_go(host: OnStandIn) -> None:
    anna = Account(name="anna", uid=1000, comment="Anna B.", groups=("wheel",), login_class="totp", password=HASH)
    done, failed = converge(host, [TOTP], [Group(name="git", gid=2000)], [anna])
    assert failed == {}
    assert done == ["login class totp: written", "group git: made", "anna: made", "anna: password set"]
    assert f"anna:{HASH}:1000:1000:totp:0:0:Anna B.:/home/anna:/bin/ksh\n" in host.text("/etc/master.passwd")
    assert (host.root / "home/anna").is_dir()
    changed = anna.model_copy(update={"groups": ("git",), "password": None, "shell": "/bin/sh"})
    done, failed = converge(host, [TOTP], [], [changed])
    assert (done, failed) == (["anna: shell /bin/sh; groups git", "anna: password set"], {})
    assert "wheel:*:0:root,bert\n" in host.text("/etc/group") and NO_PASSWORD in host.text("/etc/master.passwd")
    done, failed = converge(host, [TOTP], [], [anna.model_copy(update={"removed": True})])
    assert (done, failed) == (["anna: locked"], {})
    assert "anna:" in host.text("/etc/master.passwd")
    done, failed = converge(host, [TOTP], [], [anna])
    assert failed == {} and f"anna:{HASH}:" in host.text("/etc/master.passwd")


def test_an_account_made_by_hand_is_brought_in_line(host: OnStandIn) -> None:
    done, failed = converge(host, [], [], [Account(name="bert", comment="Bert", groups=("wsrc",), password=HASH)])
    assert (done, failed) == (["bert: groups wsrc"], {})
    assert host.text("/etc/group") == "wheel:*:0:root\nbert:*:1001:\nwsrc:*:9:bert\n"


def test_failures_have_the_tools_words(host: OnStandIn) -> None:
    wanted = [
        Account(name="anna", login_class="nosuch"),
        Account(name="carl", groups=("nosuch",)),
        Account(name="dora"),
    ]
    done, failed = converge(host, [], [], wanted)
    assert set(failed) == {"anna", "carl"} and all(failed.values())
    assert failed["carl"] == "there is no group nosuch"
    assert "dora: made" in done


def test_a_database_of_classes_is_rebuilt(host: OnStandIn) -> None:
    host.file("/etc/login.conf.db", "")
    assert host.run("cap_mkdb /etc/login.conf", PATH=str(host.bin), **host.environment).returncode == 0
    done, failed = converge(host, [TOTP], [], [])
    assert (done, failed) == (["login class totp: written", "login.conf.db: rebuilt"], {})


def test_jobs_on_the_real_crontab(host: OnStandIn) -> None:
    host.file("/var/cron/tabs/root", "# DO NOT EDIT\n# (x)\n# (y)\n" + SYSTEM)
    fact = Crontabs()
    users = ["root", "bert", "ghost"]

    def run(jobs: Any) -> Any:
        first = plan_jobs(jobs, users, host.read(fact, fact.command(users)))
        failed = host.perform(first)
        second = plan_jobs(jobs, users, host.read(fact, fact.command(users)))
        assert [step for step in second.steps if step.subject not in failed] == []
        return failed

    jobs = [
        Job(schedule="~ * * * *", command="acme-client x", flags="ns"),
        Job(user="bert", schedule="@daily", command="x"),
    ]
    assert run(jobs) == {}
    assert host.text("/var/cron/tabs/root").split("\n", 3)[3].startswith(SYSTEM)
    failed = run([Job(schedule="*/5~10 * * * *", command="x")])
    assert "bad minute" in failed["crontab of root"]
    assert "acme-client" in host.text("/var/cron/tabs/root"), "the old one stays"
    assert run([]) == {}
    assert host.text("/var/cron/tabs/root").split("\n", 3)[3] == SYSTEM
    assert not (host.root / "var/cron/tabs/bert").exists()

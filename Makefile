# The verbs a person types; README.md explains them. BARE=1 starts the lab from machines with nothing installed.
.PHONY: run test check torture scenarios compare compare-pki setup root lint lab-up lab-down lab-status requirements

FLEET = .venv/bin/fleet
PYTEST = .venv/bin/python -m pytest
# The lab is made of network namespaces and images: its tests run as root.
AS_ROOT = $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=DEBIAN_MIRROR,XDG_CACHE_HOME,LAB_SEED,LAB_PLANS,CI)

run: setup
	$(FLEET) lab up $(if $(BARE),--bare) ubuntu
	$(FLEET) run lab hypervisor
	$(FLEET) verify lab --limit kvm1 --limit kvm2
	$(FLEET) status lab

# The QEMU machines in one process, all else in the other; then what both have sent to hosts is read.
test: setup root lint
	$(AS_ROOT) $(PYTEST) -n 2 tests/unit tests/render tests/pki tests/standin tests/lab \
		--ignore=tests/lab/torture --ignore=tests/lab/test_commands.py
	$(AS_ROOT) $(PYTEST) tests/lab/test_commands.py

check: setup root lint
	EXAMPLES=150 $(PYTEST) -n 2 tests/unit tests/render

# The Debian 13 root whose parsers read every rendered file, and the stand-ins' own: built once, then taken from the cache.
root: setup
	@$(FLEET) lab build >/dev/null

lint:
	.venv/bin/ruff check --quiet .
	.venv/bin/ruff format --quiet --check .
	.venv/bin/mypy --no-error-summary
	.venv/bin/lint-imports --no-cache >/dev/null || .venv/bin/lint-imports --no-cache

torture: setup
	$(AS_ROOT) $(PYTEST) -s tests/lab/torture

# Plays the table of tests/scenarios and writes docs/measured/scenarios.md anew.
scenarios: setup root
	$(AS_ROOT) .venv/bin/python -m tests.scenarios

# Against Ansible and against other tools for a private PKI, which they fetch or name: docs/measured.
compare: setup root
	$(AS_ROOT) timeout --foreground --signal=INT --kill-after=60 900 $(PYTEST) -s tests/compare

compare-pki: setup
	.venv/bin/python -m tests.compare.pki

lab-up: setup
	$(FLEET) lab up $(if $(BARE),--bare)

lab-down: setup
	$(FLEET) lab down

lab-status: setup
	$(FLEET) lab status

setup:
	@./setup.sh

# After a change of the dependencies in pyproject.toml.
requirements:
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --extra dev pyproject.toml -o requirements.txt
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 tests/compare/requirements.in -o tests/compare/requirements.txt

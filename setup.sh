#!/bin/sh
# Set up everything on a fresh Debian 12 or 13: system packages, then the virtual environment in .venv.
# Called by make; running it again costs nothing where nothing changed. As an ordinary user it asks sudo(8).
set -eu
cd "$(dirname "$0")"

say() { printf '%s\n' "setup: $*"; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi; }

. /etc/os-release
if [ "${ID:-}" = ubuntu ] && [ -z "${DEBIAN_MIRROR:-}" ]; then
	say "this is Ubuntu: the lab is made of Debian packages, so name a mirror first: make run DEBIAN_MIRROR=URL" >&2
	exit 2
fi
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
	say "run this as root, or install sudo: network namespaces and images need root" >&2
	exit 2
fi

stamp=.venv/.ready
recipe=$(cat requirements.txt pyproject.toml tests/lab/system-packages.txt setup.sh | cksum)
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; then
	exit 0
fi

missing=
for package in $(cat tests/lab/system-packages.txt); do
	case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in ii*) ;; *) missing="$missing $package" ;; esac
done
if [ -n "$missing" ]; then
	say "installing$missing"
	# Third-party sources are ignored: one that is out of reach must not stop us. Debian's own are those that
	# name Debian's keyring, or no key at all.
	own=$(mktemp -d)
	trap 'rm -rf "$own"' EXIT
	chmod 755 "$own"
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
		[ -f "$file" ] || continue
		case $file in
		*.sources) awk 'BEGIN { RS = ""; ORS = "\n\n" } !/Signed-By:/ || /debian-archive-keyring/ || /ubuntu-archive-keyring/' "$file" ;;
		*) continue ;;
		esac >"$own/$(basename "$file")"
	done
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -f "$file" ] || continue
		# shellcheck disable=SC2154 # VERSION_CODENAME is set by os-release
		awk -v c="$VERSION_CODENAME" '$1 == "deb" && $0 ~ "[ \t](" c "|stable)(-updates|-security)?[ \t]" && (!/signed-by=/ || /debian-archive-keyring/ || /ubuntu-archive-keyring/)' "$file" >"$own/$(basename "$file")"
	done
	root apt-get -q -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$own" -o APT::Get::List-Cleanup=0 update
	# shellcheck disable=SC2086 # a list of package names
	root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
		-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$own" install $missing
fi

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { say "Python 3.11 or newer is needed, $python is older" >&2; exit 2; }
say "making .venv from requirements.txt (hashes pinned)"
rm -f "$stamp"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
printf '%s\n' "$recipe" >"$stamp"
say "done"

# shellcheck shell=bash disable=SC2034
# Sourced by the other scripts from the project's root: the tools of .venv, one way to speak, one way to ask for a
# system package.

export PATH="$PWD/.venv/bin:$PATH" VIRTUAL_ENV="$PWD/.venv" PYO3_PYTHON="$PWD/.venv/bin/python"

# In CI the lock file is the truth; at a desk cargo may update it.
locked=()
if [ "${CI:-}" = true ]; then locked=(--locked); fi

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

may_install() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

# need_packages WHY PACKAGE...: installs Debian packages where that is allowed, else names the command and stops.
need_packages() {
    local why=$1
    shift
    may_install || fail "$why. On Debian or Ubuntu: sudo apt-get install -y $*"
    say "installing $* ($why)"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

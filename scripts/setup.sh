#!/usr/bin/env bash
# Makes .venv and installs what development needs into it. Safe to run again: what is there stays.
# PYTHON=/path/to/python3.12 chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

oldest_python=3.11
oldest_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# Runs each candidate instead of looking for its file: a version manager's shim exists without its interpreter.
is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < tuple(map(int, sys.argv[1].split("."))))' \
        "$oldest_python" >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON does not run Python $oldest_python or newer"
        command -v "$PYTHON"
        return
    fi
    for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
        if is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python $oldest_python or newer found. Install one (Debian 12: apt-get install -y python3 python3-venv)" \
        "or name it: make test PYTHON=/path/to/python"
}

check_rust() {
    local found
    command -v cargo >/dev/null ||
        fail "cargo not found. Install Rust $oldest_rust or newer with rustup (https://rustup.rs), then run this again"
    found=$(cargo --version | awk '{ print $2 }')
    [ "$(printf '%s\n%s\n' "$oldest_rust" "$found" | sort -V | head -n 1)" = "$oldest_rust" ] ||
        fail "cargo $found is older than $oldest_rust. Update it: rustup update stable"
}

make_venv() {
    if [ -e .venv ] && is_new_enough .venv/bin/python; then
        return
    fi
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        need_packages "$python has no venv module" python3-venv
    say "creating .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
}

# For the tests of a dataset that reads from a server. Without it they are skipped, and say so.
offer_postgres() {
    if command -v postgres >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null; then
        return
    fi
    if may_install && install_postgres; then
        return
    fi
    say "no PostgreSQL: a test is skipped without it. On Debian or Ubuntu: sudo apt-get install -y postgresql"
}

# The tests start a server of their own, so Debian is told to make no cluster and start no service.
install_postgres() {
    local why="a test starts a server of its own"
    need_packages "$why" postgresql-common &&
        sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf &&
        need_packages "$why" postgresql
}

check_rust
command -v cc >/dev/null || need_packages "no C compiler: cargo links with cc" build-essential
offer_postgres
make_venv

# The extra of pyproject.toml that tests/libraries needs. Asking pip for the extra would build the package, too.
libraries() {
    .venv/bin/python -c 'import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"]["libraries"], sep="\n")'
}

say "installing scripts/requirements-dev.txt and the extra \`libraries\` into .venv" \
    "(the first time about 5.5 GB, nearly all of it torch)"
# No cache: pip would keep a second copy of torch for an environment that is made once.
.venv/bin/python -m pip install --quiet --no-cache-dir -r scripts/requirements-dev.txt -r <(libraries)

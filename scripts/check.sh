#!/usr/bin/env bash
# Every check that is not a test. Runs all of them and names the ones that failed, so that one run shows everything.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

failed=()
report=$(mktemp)
output=$(mktemp)
trap 'rm -f "$report" "$output"' EXIT
# What a failed check said is said again at the end, where a reader of a long log looks.
check() {
    local name=$1
    shift
    say "$name: $*"
    if ! "$@" 2>&1 | tee "$output"; then
        failed+=("$name")
        { say "$name said, at its end:" && tail -n 20 "$output"; } >>"$report" 2>&1
    fi
}

check "Rust format" cargo fmt --all --check
check "clippy" cargo clippy --workspace --all-targets "${locked[@]}" -- -D warnings
check "Python lint" ruff check .
check "Python format" ruff format --check .
check "mypy" mypy --strict python/forebay
check "stub of the engine" stubtest forebay._engine --mypy-config-file pyproject.toml --allowlist scripts/stubtest-allowlist.txt
check "basedpyright" basedpyright
check "project laws" python scripts/tidy.py
check "Rust documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps "${locked[@]}"
# A workspace of its own, with a target folder of its own: what it builds is not what the others do.
check "candle demo" cargo check --quiet --manifest-path demo/candle/Cargo.toml --target-dir target/candle "${locked[@]}"
# Packages are tried against each other's packages, which cargo unpacks and compiles once for each version, and never again:
# what an earlier run left is not what is here. (Folders of registries without a name are such.)
rm -rf "${CARGO_HOME:-$HOME/.cargo}"/registry/src/-*/forebay-* target/packages
# They are built from what is already fetched: no registry is asked again for every one of them.
check "Rust dependencies" env CARGO_NET_RETRY=10 cargo fetch "${locked[@]}"
check "Rust packages" cargo package --offline --quiet --target-dir target/packages --workspace --exclude forebay-py --allow-dirty "${locked[@]}"
if cargo deny --version >/dev/null 2>&1; then
    check "licences and sources" cargo deny check bans licenses sources
fi
check "loom" scripts/loom.sh 3

cat "$report"
[ ${#failed[@]} -eq 0 ] || fail "failed: $(printf '%s; ' "${failed[@]}" | sed 's/; $//')"
say "all checks passed"

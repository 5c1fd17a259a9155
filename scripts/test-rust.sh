#!/usr/bin/env bash
# All Rust tests, then the documentation's examples. Words given go to the test runner.
# forebay-py stays out: without an interpreter around it there is nothing to link its tests to; pytest covers it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

crates=(--workspace --exclude forebay-py)

if cargo nextest --version >/dev/null 2>&1; then
    say "Rust tests (cargo nextest: one process for each)"
    cargo nextest run "${crates[@]}" "${locked[@]}" --no-fail-fast "$@"
else
    say "Rust tests (cargo test; cargo install cargo-nextest gives each its own process)"
    cargo test "${crates[@]}" --all-targets "${locked[@]}" "$@"
fi

if [ $# -eq 0 ]; then
    say "documentation examples"
    cargo test --doc "${crates[@]}" "${locked[@]}"
fi

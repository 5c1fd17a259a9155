#!/usr/bin/env bash
# Model checks the queues and wake-ups between processes: loom replaces the atomics and tries the interleavings.
# loom.sh [PREEMPTIONS]: how many preemptions per execution to explore; 3 takes seconds, 5 a minute or more.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export LOOM_MAX_PREEMPTIONS=${1:-3}
export RUSTFLAGS="--cfg loom"
say "loom: interleavings of queues and wake-ups, up to $LOOM_MAX_PREEMPTIONS preemptions"
# Its own target directory: with other RUSTFLAGS cargo would rebuild everything, here and then there again.
cargo test -p forebay-shm --release --test loom --target-dir target/loom "${locked[@]}"

#!/usr/bin/env bash
# Builds a wheel that runs on other Linux distributions into dist/, then tries it where nothing else is installed:
# in an empty environment of every Python found here that it claims to support.
# MANYLINUX=manylinux_2_28 chooses a newer platform than the default, glibc 2.17.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

platform=${MANYLINUX:-manylinux2014}

# zig links against the C library of that platform, so no container is needed. Only wheels need it (100 MB).
python -c 'import ziglang' 2>/dev/null || {
    say "installing zig into .venv"
    python -m pip install --quiet --no-cache-dir 'ziglang>=0.14,<0.18'
}

say "building the wheel for $platform"
rm -f dist/forebay-*.whl
maturin build --release --zig --compatibility "$platform" --out dist "${locked[@]}"
wheels=(dist/forebay-*.whl)
wheel=$PWD/${wheels[0]}
[ -f "$wheel" ] || fail "maturin left no wheel in dist/"

# Interpreters on the PATH, and those of a version manager, whose shims answer only for the chosen one.
candidates() {
    local path
    command -v python3 python3.11 python3.12 python3.13 python3.14 || true
    for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3; do
        if [ -x "$path" ]; then echo "$path"; fi
    done
}

# Lines of "version interpreter", one for each version that the wheel supports.
supported() {
    local python
    candidates | while read -r python; do
        "$python" -c 'import ensurepip, sys, venv
if sys.version_info >= (3, 11): print("%d.%d" % sys.version_info[:2], sys.executable)' 2>/dev/null || true
    done | sort -V -u -k 1,1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tried=0
while read -r version python; do
    say "trying $(basename "$wheel") with Python $version"
    "$python" -m venv "$scratch/$version"
    "$scratch/$version/bin/python" -m pip install --quiet --no-cache-dir "$wheel"
    # From elsewhere and isolated, so that the package of this checkout cannot be what is imported.
    (cd "$scratch" && "$scratch/$version/bin/python" -I "$OLDPWD/scripts/smoke.py")
    tried=$((tried + 1))
done < <(supported)
[ "$tried" -gt 0 ] || fail "no Python found to try the wheel with"
say "$wheel works with $tried Python version(s)"

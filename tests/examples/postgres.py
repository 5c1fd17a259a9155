"""A private PostgreSQL server for tests: its data in a folder of its own, a Unix socket only, gone afterwards."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def missing() -> str | None:
    """Why there can be no server here, and what to do about it; None where there can."""
    if _program("initdb") is None or _program("postgres") is None:
        return "no PostgreSQL server; on Debian or Ubuntu: apt-get install -y postgresql"
    if _user() == "":
        return "this is root, as whom PostgreSQL does not run, and there is no user postgres or nobody"
    return None


@contextlib.contextmanager
def server() -> Iterator[dict[str, str]]:
    """Runs a server; gives the environment variables by which clients find it."""
    user = _user()
    # Not in pytest's folder: the server's user may not look into it, and a socket's path has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="forebay-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        _run("initdb", "--pgdata", data, "--username", "forebay", "--auth", "trust", "--locale", "C", "--no-sync")
        with _serving(data, folder):
            yield {"PGHOST": str(folder), "PGUSER": "forebay", "PGDATABASE": "postgres"}
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _serving(data: Path, folder: Path) -> Iterator[None]:
    # Shared memory in ordinary files of the folder: what a killed server leaves there goes with the folder.
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": folder,
        "dynamic_shared_memory_type": "mmap",
        "fsync": "off",
        "shared_buffers": "16MB",
    }
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    process = subprocess.Popen(
        [str(_program("postgres")), "-D", data, *options], stderr=subprocess.PIPE, text=True, **_as_user()
    )
    try:
        log = []
        for line in process.stderr:
            log.append(line)
            if "ready to accept connections" in line:
                break
        else:
            raise RuntimeError(f"PostgreSQL did not start:\n{''.join(log)}")
        yield
    finally:
        process.send_signal(signal.SIGINT)  # "fast": clients are disconnected
        process.communicate()


def _run(name: str, *arguments: object) -> None:
    done = subprocess.run(
        [str(_program(name)), *map(str, arguments)], capture_output=True, text=True, check=False, **_as_user()
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")


def _program(name: str) -> str | None:
    """Debian keeps a server's programs off the PATH, in a folder for each version."""
    versions = sorted(Path("/usr/lib/postgresql").glob("[0-9]*"), key=lambda folder: float(folder.name), reverse=True)
    folders = [os.environ.get("PATH", ""), *(str(version / "bin") for version in versions)]
    return shutil.which(name, path=os.pathsep.join(folders))


def _user() -> str | None:
    """Whom the server runs as: None for this user, "" for nobody who could."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), "")


def _as_user() -> dict[str, object]:
    user = _user()
    group = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    return {**group, "cwd": "/", "env": {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}}

"""Runs the catalogue: every input in a forked child of its own, so that none can harm or hang the next."""

import gc
import json
import os
import resource
import select
import signal
import tempfile
import time
import traceback
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from observing import PYTORCH, Input, Seen, Unobservable, differences, observe, to_json

WATCHDOG_S = 100
KNOWN_HANG_S = 6
"""How long an input is watched that stock torch is known to hang on in a way that its `timeout` does not end."""

AT_ONCE = 4
"""More than processors: many inputs only wait."""


@dataclass
class Task:
    """One child: an input, and the loaders that it is given to."""

    name: str
    row: Input
    faces: list[str]
    told: Path
    printed: Path
    pid: int = 0
    pidfd: int = -1
    begun: float = 0.0

    @property
    def deadline(self) -> float:
        return self.begun + self.patience_s

    @property
    def patience_s(self) -> float:
        return KNOWN_HANG_S if self.row.hangs and self.row.alone and self.faces == [PYTORCH] else WATCHDOG_S


class ChildIsDone(SystemExit):
    """Unwinds a child to the end of the program: what happens at the interpreter's exit is a part of what is seen."""


def run(rows: dict[str, Input]) -> dict[str, dict[str, Any]]:
    """What every loader did with each input, by its name: `seen` by loader, `difference` by front, `printed`,
    `seconds`; `unobservable` where it could not be seen."""
    folder = Path(tempfile.mkdtemp(prefix="inputs"))
    tasks: deque[Task] = deque()
    for name, row in sorted(rows.items(), key=lambda item: not item[1].alone):  # those that take long begin first
        for faces in [[name] for name in row.faces] if row.alone else [row.faces]:
            number = len(tasks)
            tasks.append(Task(name, row, faces, folder / f"{number}.json", folder / f"{number}.txt"))
    found: dict[str, dict[str, Any]] = {
        task.name: {"seen": {}, "difference": {}, "printed": "", "seconds": 0.0} for task in tasks
    }
    running: list[Task] = []
    gc.collect()
    gc.freeze()  # or every child's collector would copy the pages of all that is imported
    while tasks or running:
        while tasks and len(running) < AT_ONCE:
            running.append(_start(tasks.popleft()))
        for task in _ended(running):
            running.remove(task)
            _merge(found[task.name], _result(task))
    return found


def _start(task: Task) -> Task:
    task.begun = time.monotonic()
    task.pid = os.fork()
    if task.pid == 0:
        _be_the_child(task)
    task.pidfd = os.pidfd_open(task.pid)
    return task


def _be_the_child(task: Task) -> NoReturn:
    os.setsid()
    printed = os.open(task.printed, os.O_WRONLY | os.O_CREAT)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    result: dict[str, Any] = {"seen": {}, "difference": {}}
    outcomes: dict[str, list[Any]] = {}
    try:
        for name in task.faces:
            seen, outcomes[name] = observe(task.row, name)
            result["seen"][name] = to_json(seen)
            if len(task.faces) > 1:
                result["difference"][name] = differences(name, outcomes[name], outcomes[PYTORCH])
    except Unobservable as reason:
        result = {"unobservable": str(reason)}
    except BaseException:  # noqa: BLE001 - the parent tells it
        traceback.print_exc()
        os._exit(70)
    task.told.write_text(json.dumps(result))
    if not task.row.alone:
        os._exit(0)  # the interpreter's end takes as long as all before it
    raise ChildIsDone(0)


def _ended(running: list[Task]) -> list[Task]:
    """Waits until a child has ended, or its time is over."""
    next_deadline = min(task.deadline for task in running)
    ready, _, _ = select.select([task.pidfd for task in running], [], [], max(0.0, next_deadline - time.monotonic()))
    return [task for task in running if task.pidfd in ready or time.monotonic() >= task.deadline]


def _result(task: Task) -> dict[str, Any]:
    hung = not select.select([task.pidfd], [], [], 0)[0]
    os.killpg(task.pid, signal.SIGKILL)  # a child that hangs, and what a child leaves behind
    code = os.waitstatus_to_exitcode(os.waitpid(task.pid, 0)[1])
    os.close(task.pidfd)
    result: dict[str, Any] = json.loads(task.told.read_text()) if task.told.exists() else {"seen": {}, "difference": {}}
    printed = task.printed.read_text(errors="replace") if task.printed.exists() else ""
    result["printed"] = printed
    result["seconds"] = time.monotonic() - task.begun
    if hung or code != 0:
        for name in task.faces:
            before = f"{result['seen'][name]['text']}; " if name in result["seen"] else ""
            end = "hangs" if hung else _end_words(code)
            result["seen"][name] = to_json(Seen(f"{before}{end}", [["values", 0, end]], hung=hung))
    return result


def _end_words(code: int) -> str:
    return f"the program ends with exit code {code}" if code >= 0 else f"crashes ({signal.Signals(-code).name})"


def _merge(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for key in ("seen", "difference"):
        whole[key].update(part.get(key, {}))
    if "unobservable" in part:
        whole["unobservable"] = part["unobservable"]
    whole["printed"] += part["printed"]
    whole["seconds"] += part["seconds"]


def limit_descriptors(count: int) -> None:
    """`ulimit -n count`, for this process and those it starts."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

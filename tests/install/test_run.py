"""`forebay run`: the program is what it is without, in all but who serves its loaders."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from forebay import _run
from programs import QUIET, Ended, environment, forebay_run, python, write

NOTHING = ["[forebay] no DataLoader of torch was used in this process"]

WHO_AM_I = """
    import atexit, os, sys
    if {dying!r}:
        sys.stdout.reconfigure(line_buffering=True)
    print(__name__, __file__, __package__, sys.argv, sys.path, sys.flags, sys.warnoptions)
    print(sys.stdin.read(), "sitecustomize" in sys.modules, [name for name in sys.modules if "numpy" in name])
    {ending}
"""

ENDINGS = {
    "end": ("pass", True),
    "exception": ("raise ValueError('mine')", True),
    "code": ("sys.exit(3)", True),
    "hard end": ("os._exit(4)", False),
    "signal": ("os.kill(os.getpid(), 15)", False),
    "Ctrl-C": ("os.kill(os.getpid(), 2)", True),
}


def without_site(ended: Ended) -> str:
    return ended.stdout.replace("True [", "False [")  # whether there is a sitecustomize


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_sees_and_does_what_it_does_without(ending: str, tmp_path: Path) -> None:
    code, is_orderly = ENDINGS[ending]
    program = write(tmp_path, WHO_AM_I.format(ending=code, dying=not is_orderly))
    words = [program.name, "--quiet", "-m", "x y", "-"]
    plain = python(tmp_path, *words, told="on stdin")
    ours = forebay_run(tmp_path, *words, told="on stdin")
    assert "on stdin" in plain.stdout
    assert (ours.code, without_site(ours)) == (plain.code, without_site(plain))
    assert ours.other_stderr == plain.stderr.splitlines()
    assert ours.log == (NOTHING if is_orderly else [])


def test_a_module_runs_as_with_python_m(tmp_path: Path) -> None:
    write(tmp_path, "", "package/__init__.py")
    write(tmp_path, WHO_AM_I.format(ending="raise KeyError(1)", dying=False), "package/train.py")
    plain = python(tmp_path, "-m", "package.train", "--lr", "3", "-m", "x")
    ours = forebay_run(tmp_path, "-m", "package.train", "--lr", "3", "-m", "x")
    assert "'--lr', '3', '-m', 'x'" in plain.stdout
    assert (ours.code, without_site(ours)) == (plain.code, without_site(plain))
    assert ours.other_stderr == plain.stderr.splitlines()


def test_pythons_own_flags_reach_the_program(tmp_path: Path) -> None:
    program = write(
        tmp_path, "import sys; print(sys.flags.optimize, sys.flags.utf8_mode, sys.warnoptions, sys._xoptions)"
    )
    flags = ["-OO", "-X", "utf8", "-W", "error::UserWarning"]
    plain = python(tmp_path, program, flags=flags)
    assert forebay_run(tmp_path, program, flags=flags).stdout == plain.stdout
    assert "UserWarning" in plain.stdout


def test_the_program_is_the_process_that_was_started_and_ctrl_c_reaches_it_in_the_middle_of_an_epoch(
    tmp_path: Path,
) -> None:
    program = write(
        tmp_path,
        """
        import os
        from torch.utils.data import DataLoader
        for batch in DataLoader(range(10**9), num_workers=2):
            if batch == 0:
                print(os.getpid(), flush=True)
        """,
    )
    started = subprocess.Popen(
        [sys.executable, *QUIET, "-m", "forebay", "run", str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        assert started.stdout is not None
        assert int(started.stdout.readline()) == started.pid
        os.killpg(started.pid, signal.SIGINT)
        _, stderr = started.communicate()
    finally:
        started.kill()
    assert started.returncode == -signal.SIGINT
    log = [line for line in stderr.splitlines() if line.startswith("[forebay]")]
    assert log[0] == "[forebay] serves DataLoader(range, batch_size=1, num_workers=2)"
    assert "of 1 loader came from Forebay's workers" in log[1]
    assert stderr.count("KeyboardInterrupt") == 1


def test_a_sitecustomize_of_the_users_own_runs_as_if_ours_were_not_there(tmp_path: Path) -> None:
    own = tmp_path / "own"
    text = "import sys; print('site', __name__, __file__, __spec__.name, [p for p in sys.path if 'forebay/_site' in p])"
    write(own, text, "sitecustomize.py")
    program = write(tmp_path, "import sys; print(sys.modules['sitecustomize'].__file__)")
    path = os.pathsep.join(filter(None, [str(own), os.environ.get("PYTHONPATH", "")]))
    plain, ours = (command(tmp_path, program, PYTHONPATH=path) for command in (python, forebay_run))
    assert plain.stdout.startswith("site sitecustomize")
    # It runs in the process that becomes the program, too.
    assert ours.stdout == plain.stdout.splitlines()[0] + "\n" + plain.stdout
    write(own, "raise RuntimeError('mine')", "sitecustomize.py")
    program = write(tmp_path, "import torch; print(torch.utils.data.DataLoader.__module__)")
    ended = forebay_run(tmp_path, program, PYTHONPATH=path)
    assert ended.stderr.count("RuntimeError: mine") == 2
    assert ended.stdout == "forebay.torch._loader\n"


def test_nothing_heavy_is_imported_before_the_program_imports_it(tmp_path: Path) -> None:
    program = write(
        tmp_path, "import sys; print([name for name in sys.modules if name in ('torch', 'numpy', 'forebay')])"
    )
    assert forebay_run(tmp_path, program).stdout == "[]\n"


LOADING = """
    import subprocess, sys, multiprocessing, os
    from torch.utils.data import DataLoader

    def load(name, loader=None):
        loader = loader or DataLoader(range(6), batch_size=2, num_workers=1)
        iterator = iter(loader)
        print(name, type(iterator).__name__, [batch.tolist() for batch in iterator], flush=True)

    if __name__ == "__main__":
        load(sys.argv[1])
        if sys.argv[1] == "main":
            load("inline", DataLoader(range(2)))
            load("inline", DataLoader(range(2)))
            context = multiprocessing.get_context("spawn")
            for arguments in (("spawned",), ("sent", DataLoader(range(3), num_workers=1))):
                process = context.Process(target=load, args=arguments)
                process.start()
                process.join()
            subprocess.run([sys.executable, "-W", "ignore", __file__, "subprocess"], check=True)
            if os.fork() == 0:
                sys.exit()  # tells no summary: it has loaded nothing
            os.wait()
"""


def test_loaders_of_the_program_and_of_its_children_are_served_and_the_log_tells_it(tmp_path: Path) -> None:
    program = write(tmp_path, LOADING)
    ended = forebay_run(tmp_path, program, "main")
    assert ended.code == 0, ended.stderr
    assert ended.other_stderr == []
    batches = "[[0, 1], [2, 3], [4, 5]]"
    assert ended.stdout.splitlines() == [
        f"main WorkersIterator {batches}",
        *["inline InlineIterator [[0], [1]]"] * 2,
        f"spawned WorkersIterator {batches}",
        "sent WorkersIterator [[0], [1], [2]]",
        f"subprocess WorkersIterator {batches}",
    ]
    serves = "serves DataLoader(range, batch_size={}, num_workers={})"
    mine = [line for line in ended.log if line.startswith("[forebay] ")]
    assert mine[:2] == [f"[forebay] {serves.format(2, 1)}", f"[forebay] {serves.format(1, 0)}"]
    made_here = "4 batches of 2 loaders were made in this process (num_workers=0)"
    assert mine[2:] == [f"[forebay] 3 batches of 1 loader came from Forebay's workers; {made_here}"]
    childrens = [line.partition("] ")[2] for line in ended.log if line.startswith("[forebay, process ")]
    assert childrens == [
        *(serves.format(2, 1), "3 batches of 1 loader came from Forebay's workers"),
        *(serves.format(1, 1), "3 batches of 1 loader came from Forebay's workers"),
        *(serves.format(2, 1), "3 batches of 1 loader came from Forebay's workers"),
    ]


@pytest.mark.parametrize(("words", "variables"), [(["--quiet"], {}), ([], {"FOREBAY_LOG": "off"})])
def test_quiet_is_quiet_and_serves_all_the_same(words: list[str], variables: dict[str, str], tmp_path: Path) -> None:
    ended = forebay_run(tmp_path, *words, write(tmp_path, LOADING), "alone", **variables)
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout.startswith("alone WorkersIterator")


def test_forebay_off_runs_the_program_with_torchs_loader(tmp_path: Path) -> None:
    ended = forebay_run(tmp_path, write(tmp_path, LOADING), "alone", FOREBAY="off")
    assert ended.code == 0
    assert ended.log == ["[forebay] FOREBAY=off: the program runs with torch's own loader"]
    assert ended.stdout.startswith("alone _MultiProcessingDataLoaderIter")


def test_torchrun_and_its_processes_are_served(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        """
        import torch.distributed
        from torch.utils.data import DataLoader
        from torch.utils.data.distributed import DistributedSampler
        torch.distributed.init_process_group("gloo")
        loader = DataLoader(range(8), num_workers=1, sampler=DistributedSampler(range(8), shuffle=False))
        iterator = iter(loader)
        total = torch.tensor([type(iterator).__name__ == "WorkersIterator", *(sum(batch) for batch in iterator)])
        torch.distributed.all_reduce(total)
        if torch.distributed.get_rank() == 0:
            print(total.tolist())
        torch.distributed.destroy_process_group()
        """,
    )
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    ended = forebay_run(tmp_path, *launcher, program, OMP_NUM_THREADS="1")
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "[2, 1, 5, 9, 13]\n"
    assert ended.stderr.count("4 batches of 1 loader came from Forebay's workers") == 2


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ("a.py --quiet -- -m b", "a.py --quiet -- -m b"),
        ("--quiet -m a -- --help", "-m a -- --help"),
        ("-- a.py -x", "a.py -x"),
        ("- x", "- x"),
    ],
)
def test_all_that_follows_the_programs_name_is_the_programs(
    words: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[list[str]] = []
    write(tmp_path, "", "a.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execve", lambda _, line, __: executed.append(line))
    _run.main(["run", *words.split()])
    assert executed[0][-len(program.split()) :] == program.split()
    assert executed[0][-len(program.split()) - 1] not in {"run", "--", "--quiet", "-m"}


REFUSED = {
    "no program": ([], "no program was given: name a script, or a module after -m"),
    "no module": (["-m"], "no program was given"),
    "no file": (["nowhere.py"], "there is no file 'nowhere.py': name a Python script"),
    "a command": (["torchrun", "x.py"], "(for torchrun: -m torch.distributed.run)"),
    "an option": (["--loud", __file__], "unrecognized arguments: --loud"),
}


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        _run.main(["run", *words])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_run_is_refused_with_a_reason(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    given, reason = REFUSED[words]
    assert reason in refusal(capsys, *given)


@pytest.mark.parametrize(
    ("variable", "value"), [("FOREBAY", "no"), ("FOREBAY_LOG", "loud"), ("FOREBAY_MEMORY_BUDGET", "lots")]
)
def test_a_variable_that_makes_no_sense_is_refused_before_the_program_starts(
    variable: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    said = refusal(capsys, __file__)
    assert variable in said
    assert value in said


@pytest.mark.parametrize(("flag", "letter"), [("isolated", "-I"), ("ignore_environment", "-E"), ("no_site", "-S")])
def test_a_python_that_reads_no_environment_is_refused(
    flag: str, letter: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = SimpleNamespace(**{"isolated": 0, "ignore_environment": 0, "no_site": 0, flag: 1})
    monkeypatch.setattr(_run, "sys", SimpleNamespace(flags=flags))
    assert f"Python was started with {letter}" in refusal(capsys, __file__)


def test_the_command_tells_its_version_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in ((["--version"], "forebay "), (["run", "--help"], "usage: forebay run [--quiet] train.py")):
        with pytest.raises(SystemExit) as ended:
            _run.main(words)
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(expected)


def test_what_a_worker_loads_is_not_told(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        """
        from torch.utils.data import DataLoader

        class Nested:
            def __len__(self):
                return 2
            def __getitem__(self, index):
                return len(list(DataLoader(range(index + 1))))

        if __name__ == "__main__":
            for method in ("fork", "spawn"):
                loader = DataLoader(Nested(), num_workers=1, multiprocessing_context=method)
                print([batch.tolist() for batch in loader], flush=True)
        """,
    )
    ended = forebay_run(tmp_path, program)
    assert ended.stdout == "[[1], [2]]\n" * 2, ended.stderr
    assert ended.log == [
        "[forebay] serves DataLoader(Nested, batch_size=1, num_workers=1)",
        "[forebay] 4 batches of 2 loaders came from Forebay's workers",
    ]

"""The rule of thumb for the number of workers: what it counts, and what it never exceeds."""

import io
import multiprocessing
import os
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forebay
from forebay._suggested_workers import Host, advise
from support import in_child

NOWHERE = Path("/nowhere")


def workers(cpus: int, root: Path = NOWHERE, **environment: str) -> int:
    return advise(Host(root, environment, cpus)).num_workers


def write(root: Path, *described: dict[str, str]) -> None:
    """Makes the files of a described host."""
    for name, text in [item for files in described for item in files.items()]:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


# -- Laws

COUNTS = st.integers(1, 300)


@given(cpus=COUNTS, ranks=COUNTS, gpus=st.integers(0, 16))
def test_it_is_at_least_one_and_never_more_than_four_for_each_gpu_or_the_ranks_share_of_cpus(
    cpus: int, ranks: int, gpus: int
) -> None:
    visible = ",".join(map(str, range(gpus)))
    found = workers(cpus, LOCAL_WORLD_SIZE=str(ranks), CUDA_VISIBLE_DEVICES=visible)
    assert 1 <= found <= max(1, cpus // ranks)
    assert found <= 4 * max(1, gpus)


@given(cpus=COUNTS, ranks=COUNTS)
def test_all_ranks_together_leave_each_trainer_a_cpu_where_there_are_three_for_each(cpus: int, ranks: int) -> None:
    found = workers(cpus, LOCAL_WORLD_SIZE=str(ranks))
    if cpus // ranks >= 3:
        assert (found + 1) * ranks <= cpus


@given(cpus=COUNTS, ranks=COUNTS)
def test_another_cpu_never_makes_it_less(cpus: int, ranks: int) -> None:
    assert workers(cpus, LOCAL_WORLD_SIZE=str(ranks)) <= workers(cpus + 1, LOCAL_WORLD_SIZE=str(ranks))


@given(
    values=st.dictionaries(
        st.sampled_from(
            [
                "LOCAL_WORLD_SIZE",
                "SLURM_STEP_TASKS_PER_NODE",
                "SLURM_NODEID",
                "SLURM_CPUS_PER_TASK",
                "CUDA_VISIBLE_DEVICES",
            ]
        ),
        st.text(max_size=12),
    )
)
def test_nonsense_in_the_environment_is_no_error(values: dict[str, str]) -> None:
    assert workers(8, **values) >= 1


# -- CPUs


@pytest.mark.parametrize(("cpus", "expected"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (64, 4)])
def test_from_three_cpus_on_one_is_left_to_the_trainer(cpus: int, expected: int) -> None:
    assert workers(cpus) == expected


VERSION_2 = {
    "proc/self/cgroup": "0::/pods/mine\n",
    "proc/self/mountinfo": "38 31 0:31 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
}
VERSION_1 = {
    "proc/self/cgroup": "4:memory:/other\n3:cpu,cpuacct:/pods/mine\n0::/\n",
    "proc/self/mountinfo": (
        "30 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    ),
}


@pytest.mark.parametrize("place", ["pods/mine/", "pods/", ""])
def test_a_quota_of_version_2_counts_and_so_does_one_of_a_group_above(tmp_path: Path, place: str) -> None:
    write(tmp_path, VERSION_2, {f"sys/fs/cgroup/{place}cpu.max": "350000 100000\n"})
    assert workers(64, tmp_path) == 2  # 3.5 CPUs are 3, of which the trainer has one


@pytest.mark.parametrize("place", ["pods/mine/", "pods/", ""])
def test_a_quota_of_version_1_counts_and_so_does_one_of_a_group_above(tmp_path: Path, place: str) -> None:
    group = f"sys/fs/cgroup/cpu,cpuacct/{place}"
    write(tmp_path, VERSION_1, {f"{group}cpu.cfs_quota_us": "200000\n", f"{group}cpu.cfs_period_us": "100000\n"})
    assert workers(64, tmp_path) == 2


def test_the_smallest_quota_on_the_way_up_is_the_one_that_counts(tmp_path: Path) -> None:
    for place, quota in (("pods/mine/", 400_000), ("pods/", 100_000), ("", 800_000)):
        write(tmp_path, VERSION_2, {f"sys/fs/cgroup/{place}cpu.max": f"{quota} 100000"})
    assert workers(64, tmp_path) == 1


@pytest.mark.parametrize("text", ["max 100000", "", "nonsense"])
def test_no_quota_is_no_limit(tmp_path: Path, text: str) -> None:
    write(tmp_path, VERSION_2, {"sys/fs/cgroup/pods/mine/cpu.max": text})
    assert workers(64, tmp_path) == 4


def test_minus_one_is_no_quota_in_version_1(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/cpu,cpuacct/pods/mine/"
    write(tmp_path, VERSION_1, {f"{group}cpu.cfs_quota_us": "-1\n", f"{group}cpu.cfs_period_us": "100000\n"})
    assert workers(64, tmp_path) == 4


def test_a_quota_below_one_cpu_still_gives_a_worker(tmp_path: Path) -> None:
    write(tmp_path, VERSION_2, {"sys/fs/cgroup/pods/mine/cpu.max": "50000 100000"})
    assert workers(64, tmp_path) == 1


@pytest.mark.parametrize(
    ("own", "top"),
    [
        ("/docker/abc", "/docker/abc"),  # a container that sees the host's paths
        ("/docker/abc", "/docker/ab"),  # a mount of another group, with a like name
        ("/../../docker/abc", "/"),  # a process outside of the name space's root
        ("/", "/.."),
    ],
)
def test_in_a_container_the_quota_stands_at_the_top_of_its_mount(tmp_path: Path, own: str, top: str) -> None:
    mount = f"38 31 0:31 {top} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    write(tmp_path, {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": mount})
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "200000 100000"})
    assert workers(64, tmp_path) == 2


def test_in_a_container_that_sees_the_hosts_paths_a_group_within_it_counts(tmp_path: Path) -> None:
    mount = "38 31 0:31 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    write(tmp_path, {"proc/self/cgroup": "0::/docker/abc/job\n", "proc/self/mountinfo": mount})
    write(tmp_path, {"sys/fs/cgroup/job/cpu.max": "200000 100000"})
    assert workers(64, tmp_path) == 2


def test_the_affinity_of_this_process_counts() -> None:
    def with_one_cpu() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        assert forebay.suggested_num_workers() == 1

    assert in_child(with_one_cpu) == 0


# -- Ranks


@pytest.mark.parametrize(
    "environment",
    [
        {"LOCAL_WORLD_SIZE": "4"},
        {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
        {"MPI_LOCALNRANKS": "4"},
        {"MV2_COMM_WORLD_LOCAL_SIZE": "4"},
        {"SLURM_NTASKS_PER_NODE": "4"},
        {"SLURM_STEP_TASKS_PER_NODE": "4(x2),1"},
        {"SLURM_STEP_TASKS_PER_NODE": "2,4", "SLURM_NODEID": "1"},
        {"SLURM_STEP_TASKS_PER_NODE": "2(x2),4,1", "SLURM_NODEID": "2"},
        {"SLURM_NTASKS_PER_NODE": "1", "LOCAL_WORLD_SIZE": "4"},  # one torchrun for each host
    ],
    ids=str,
)
def test_the_ranks_on_this_host_share_its_cpus(environment: dict[str, str]) -> None:
    assert workers(16, **environment) == 3


def test_cpus_that_slurm_has_bound_to_a_rank_are_not_divided_again() -> None:
    assert workers(8, SLURM_NTASKS_PER_NODE="4", SLURM_CPUS_PER_TASK="8") == 4
    assert workers(4, SLURM_NTASKS_PER_NODE="4", SLURM_CPUS_PER_TASK="8") == 3
    assert workers(8, LOCAL_WORLD_SIZE="4", SLURM_NTASKS_PER_NODE="1", SLURM_CPUS_PER_TASK="8") == 2


# -- GPUs


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 8),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f1c, GPU-77aa"}, 8),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, 4),
        ({"CUDA_VISIBLE_DEVICES": ""}, 4),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 4),
        ({"HIP_VISIBLE_DEVICES": "0,1,2"}, 12),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "LOCAL_WORLD_SIZE": "2"}, 8),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "LOCAL_WORLD_SIZE": "2"}, 4),
        ({"CUDA_VISIBLE_DEVICES": "3", "LOCAL_WORLD_SIZE": "4"}, 4),
    ],
    ids=str,
)
def test_each_visible_gpu_of_a_rank_gets_four(environment: dict[str, str], expected: int) -> None:
    assert workers(256, **environment) == expected


@pytest.mark.parametrize(
    "files",
    [
        {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""},
        {
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "",
            "proc/driver/nvidia/gpus/0000:02:00.0/information": "",
        },
        {f"sys/class/kfd/kfd/topology/nodes/{node}/gpu_id": text for node, text in enumerate(["0\n", "51\n", "52\n"])},
    ],
    ids=["device files", "driver", "AMD"],
)
def test_without_a_variable_the_gpus_of_the_host_are_counted(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    assert workers(256, tmp_path) == 8


# -- What is said


def test_the_reasoning_is_printed_on_request_only() -> None:
    silent, said = io.StringIO(), io.StringIO()
    with redirect_stdout(silent):
        quiet = forebay.suggested_num_workers()
    with redirect_stdout(said):
        loud = forebay.suggested_num_workers(explain=True)
    assert (silent.getvalue(), quiet) == ("", loud)
    assert said.getvalue().startswith(f"suggested_num_workers: {loud}\n")
    assert f"CPUs this process may run on: {len(os.sched_getaffinity(0))}" in said.getvalue()


def test_the_reasoning_names_the_file_and_the_variable_it_rests_on(tmp_path: Path) -> None:
    write(tmp_path, VERSION_2, {"sys/fs/cgroup/pods/cpu.max": "600000 100000"})
    text = str(advise(Host(tmp_path, {"LOCAL_WORLD_SIZE": "2"}, 64)))
    assert "6 (/sys/fs/cgroup/pods/cpu.max)" in text
    assert "2 (LOCAL_WORLD_SIZE=2)" in text


def _suggested(pipe: int) -> None:
    os.write(pipe, bytes([forebay.suggested_num_workers()]))


def test_a_process_that_may_have_no_children_is_told_0() -> None:
    out, into = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_suggested, args=(into,), daemon=True)
    process.start()
    assert os.read(out, 1) == b"\0"
    process.join()
    os.close(out)
    os.close(into)

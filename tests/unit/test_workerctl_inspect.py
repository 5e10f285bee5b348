"""`inspect`, and a job as the command of another program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.workerctl_fakes import INFO, FakeWorkerd, ctl, make_job
from workerctl.complete import filled
from workerctl.equivalent import PROGRAMS, Translation, translate
from workerctl.equivalent.podman import block_weight, shares
from workerd.job import (
    After,
    IoLimit,
    Job,
    JobSpec,
    Limits,
    Mount,
    MountKind,
    Net,
    OnTimeout,
    Outcome,
    Protocol,
    Publish,
    Restart,
    RestartPolicy,
    State,
)

PLAIN = JobSpec(("sh", "-c", "echo 'a b' $HOME"), cwd="/srv")
CHANGES: dict[str, Any] = {
    "cwd": "/opt",
    "name": "build",
    "net": Net.HOST,
    "publish": (Publish(8080, 80),),
    "hostname": "there",
    "mounts": (Mount(MountKind.BIND, "/b", "/a"),),
    "rootfs": "/srv/tree",
    "read_only": True,
    "umask": 0o077,
    "cap_add": ("net_admin",),
    "seccomp": False,
    "max_output": 1 << 20,
    "stop_signal": 2,
    "grace": 60_000_000,
    "timeout": 600_000_000,
    "cpu_time": 5_000_000,
    "restart": RestartPolicy(Restart.ON_FAILURE, 3),
    "priority": 5,
    "tty": True,
    "labels": {"team": "x"},
    "remove": True,
}
LIMITS: dict[str, Any] = {
    "memory": 1 << 28,
    "swap": 1 << 20,
    "cpus": 0.5,
    "cpu_weight": 50,
    "cpuset": "0-1",
    "pids": 9,
    "io": (IoLimit("/dev/sda", write_bps=1 << 20),),
    "io_weight": 200,
}


def as_of(program: str, spec: JobSpec, **fields: Any) -> Translation:
    return translate(filled(make_job(uid=1000, gid=1000, spec=spec, **fields)), program)


def said(translation: Translation) -> tuple[Any, ...]:
    return (*translation.words, *translation.without)


class TestTranslation:
    @pytest.mark.parametrize("program", PROGRAMS)
    @pytest.mark.parametrize("field", sorted(set(JobSpec.__struct_fields__) - {"argv", "limits", "user", "on_timeout"}))
    def test_whatever_is_asked_for_is_said(self, program: str, field: str) -> None:
        # systemd-run's units are collected, and its output is kept by the journal, at any rate
        if program == "systemd-run" and field in ("remove", "max_output"):
            return
        changed = msgspec.structs.replace(PLAIN, **{field: CHANGES[field]})
        assert said(as_of(program, changed)) != said(as_of(program, PLAIN))

    @pytest.mark.parametrize("program", PROGRAMS)
    @pytest.mark.parametrize("field", sorted(Limits.__struct_fields__))
    def test_so_is_every_limit(self, program: str, field: str) -> None:
        changed = msgspec.structs.replace(PLAIN, limits=Limits(**{field: LIMITS[field]}))
        assert said(as_of(program, changed)) != said(as_of(program, PLAIN))

    @pytest.mark.parametrize("program", PROGRAMS)
    @pytest.mark.parametrize(
        "spec",
        [
            msgspec.structs.replace(PLAIN, timeout=9, on_timeout=OnTimeout.PAUSE),
            msgspec.structs.replace(PLAIN, net=Net.BRIDGE, publish=(Publish(53, 53, Protocol.UDP),)),
            msgspec.structs.replace(PLAIN, limits=Limits(io=(IoLimit(read_iops=5),))),
            msgspec.structs.replace(PLAIN, mounts=tuple(Mount(kind, "/t", "/s", 5) for kind in MountKind)),
            msgspec.structs.replace(PLAIN, **CHANGES, limits=Limits(**LIMITS), user="ada"),
        ],
    )
    def test_any_job_can_be_said(self, program: str, spec: JobSpec) -> None:
        found = as_of(program, spec)
        assert all(isinstance(word, str) and word for word in found.words) and found.without

    def test_systemd_run_in_full(self) -> None:
        spec = JobSpec(
            ("make", "$X"), cwd="/srv", name="b", timeout=90_000_000, limits=Limits(memory=1 << 28, cpus=0.5)
        )
        assert shlex.join(as_of("systemd-run", spec).words) == (
            "systemd-run --unit=worker-b --uid=1000 --gid=1000 --working-directory=/srv --collect "
            "--service-type=exec -p MemoryMax=256M -p OOMPolicy=kill -p MemorySwapMax=0 -p CPUQuota=50% "
            "-p TimeoutStopSec=10 -p RuntimeMaxSec=90 -p ProtectSystem=strict "
            "-p PrivateTmp=yes -p PrivateDevices=yes -p PrivateIPC=yes -p ProtectControlGroups=yes "
            "-p ReadWritePaths=/srv -p PrivateNetwork=yes -p NoNewPrivileges=yes "
            "-p CapabilityBoundingSet= -p SystemCallFilter=@system-service -- make '$$X'"
        )

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
    def test_systemd_knows_every_property_and_its_value(self, tmp_path: Path) -> None:
        mounts = tuple(
            Mount(kind, "/mnt", "/srv" if kind.startswith("bind") else None, 5 if kind is MountKind.TMPFS else None)
            for kind in MountKind
        )
        spec = msgspec.structs.replace(PLAIN, **{**CHANGES, "mounts": mounts, "net": Net.NONE}, limits=Limits(**LIMITS))
        words = as_of("systemd-run", spec).words
        properties = [words[place + 1] for place, word in enumerate(words) if word == "-p"]
        of_unit = [line for line in properties if line.startswith("StartLimit")]
        service = [line for line in properties if line not in of_unit]
        text = "\n".join(["[Unit]", *of_unit, "[Service]", "Type=exec", "ExecStart=/bin/true", *service, ""])
        (tmp_path / "worker-x.service").write_text(text)
        verify = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "worker-x.service")]
        done = subprocess.run(verify, capture_output=True, text=True, check=False)
        assert not re.search(r"worker-x\.service:\d+:", done.stderr), done.stderr
        assert len(properties) > 25

    def test_podman_in_full(self) -> None:
        spec = JobSpec(("make",), cwd="/srv", name="b", rootfs="/tree", limits=Limits(memory=1 << 20, swap=1 << 20))
        assert shlex.join(as_of("podman", spec).words) == (
            "podman run --detach --init --user=1000:1000 --workdir=/srv --name=b --memory=1048576 "
            "--memory-swap=2097152 --pids-limit=-1 --network=none "
            "--security-opt=no-new-privileges --cap-drop=all --rootfs /tree make"
        )

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_what_it_waits_for_is_said_too(self, program: str) -> None:
        waiting = as_of(program, PLAIN, state=State.QUEUED, after=(After("k3v9q2m7xd", Outcome.OK),))
        assert any("k3v9q2m7xd" in sentence for sentence in waiting.without)
        assert said(as_of(program, PLAIN, start_at=1_900_000_000_000_000)) != said(as_of(program, PLAIN))

    def test_a_time_is_systemds_calendar(self) -> None:
        words = as_of("systemd-run", PLAIN, start_at=1_900_000_000_500_000).words
        assert "--on-calendar=2030-03-17 17:46:40 UTC" in words

    @pytest.mark.parametrize("weight", [1, 2, 50, 100, 101, 9_999, 10_000])
    def test_podmans_weights_give_the_same_in_the_kernel(self, weight: int) -> None:
        assert 1 + (shares(weight) - 2) * 9_999 // 262_142 == weight
        assert abs(1 + (block_weight(weight) - 10) * 9_999 / 990 - weight) < 11


class TestInspect:
    @pytest.fixture
    def fake(self, tmp_path: Path) -> Iterator[FakeWorkerd]:
        made = FakeWorkerd(tmp_path / "sock")
        job = make_job(state=State.RUNNING, spec=JobSpec(("sleep", "9"), limits=Limits(memory=1 << 28)))
        made.answers["job.status"] = lambda params: job
        yield made
        made.close()

    def test_is_an_array_of_all_there_is(self, fake: FakeWorkerd) -> None:
        shown = json.loads(ctl(fake, "inspect", "k3").out)
        assert len(shown) == 1 and set(shown[0]) == {*Job.__struct_fields__, "user", "why", "command_line"}
        assert shown[0]["command_line"] == "workerctl run --workdir / --mem 256M -- sleep 9"
        assert len(json.loads(ctl(fake, "inspect", "--json", "k3", "k3").out)) == 2

    def test_the_command_line_leaves_out_what_this_daemon_has_by_default(self, fake: FakeWorkerd) -> None:
        job = make_job(state=State.RUNNING, spec=JobSpec(("sleep", "9"), max_output=5 << 20))
        fake.answers["job.status"] = lambda params: job

        def keep_by_default(size: int) -> None:
            info = msgspec.structs.replace(INFO, default_output=size)
            fake.answers["daemon.info"] = lambda params: info

        for default, said in ((5 << 20, False), (64 << 20, True)):
            keep_by_default(default)
            shown = json.loads(ctl(fake, "inspect", "k3").out)[0]
            assert ("--max-output 5M" in shown["command_line"]) is said and shown["spec"]["max_output"] == 5 << 20
            assert (b"max-size=5242880" in ctl(fake, "inspect", "--as", "podman", "k3").out) is said

    def test_as_prints_the_command_alone_on_stdout(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "inspect", "--as", "systemd-run", "k3")
        assert ran.out.startswith(b"systemd-run ") and ran.out.count(b"\n") == 1 and "PrivatePIDs" in ran.err
        shown = json.loads(ctl(fake, "inspect", "--as", "podman", "--json", "k3").out)
        assert shown["command"][:2] == ["podman", "run"] and shown["without"]

    def test_refuses_what_is_no_program(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "inspect", "--as", "docker", "k3")
        assert ran.code == 125 and "choose systemd-run or podman" in ran.err and not fake.requests

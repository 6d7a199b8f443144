"""What foreign bytes may do to the child, and what the job sees of it: one refusal, and the rest done."""

import os
import signal
import subprocess
import sys
import time

import pytest
from supervised_handlers import troublesome

from etl.quality import Reason, RefusedError
from etl.supervision import Child, ChildLimits


@pytest.fixture
def child():
    child = Child(ChildLimits(memory_bytes=1 << 30, seconds=1.5))
    yield child
    child.stop()


def outcomes(child, requests):
    return [
        answer.reason if isinstance(answer, RefusedError) else "fine" for _, answer in child.map(troublesome, requests)
    ]


def test_every_request_gets_its_answer_in_order(child):
    answers = list(child.map(troublesome, range(200)))

    assert [request for request, _ in answers] == list(range(200))
    assert [answer[0] for _, answer in answers] == list(range(200))
    assert len({answer[1] for _, answer in answers}) == 1


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("die", Reason.CHILD_DIED),
        ("exit", Reason.CHILD_DIED),
        ("hang", Reason.CHILD_TIME),
        ("eat", Reason.CHILD_MEMORY),
        ("panic", Reason.DICOM_DAMAGED),
        ("recurse", Reason.NESTING_TOO_DEEP),
        ("refuse", Reason.NOT_CT),
    ],
)
def test_trouble_costs_one_request_and_no_other(child, trouble, reason):
    assert outcomes(child, ["a", "b", trouble, "c", trouble, "d"]) == ["fine", "fine", reason, "fine", reason, "fine"]


@pytest.mark.parametrize(("times", "ends"), [(1, "fine"), (2, Reason.CHILD_DIED)])
def test_a_child_that_somebody_killed_costs_nothing_unless_it_happens_again(child, tmp_path, times, ends):
    killed = ("killed", str(tmp_path / "kills"), times)

    assert outcomes(child, ["a", killed, "b"]) == ["fine", ends, "fine"]


def test_trouble_all_the_way_ends(child):
    assert outcomes(child, ["die"] * 5) == [Reason.CHILD_DIED] * 5


def test_refusal_carries_no_text_of_the_error(child):
    ((_, refusal),) = child.map(troublesome, ["panic"])

    assert refusal.detail == "BaseException"


def test_a_conversation_left_early_does_not_leak_into_the_next(child):
    for _ in child.map(troublesome, ["big"] * 20):
        break

    assert outcomes(child, ["x"]) == ["fine"]


def test_the_child_is_kept_between_conversations_and_goes_with_its_keeper():
    program = (
        "import sys, os; sys.path[:0] = ['tests']\n"
        "from supervised_handlers import troublesome\n"
        "from etl.supervision import Child, ChildLimits, this_process_child\n"
        "child = this_process_child(ChildLimits())\n"
        "pids = {answer[1] for _ in range(3) for _, answer in child.map(troublesome, [1])}\n"
        "print(*pids, flush=True)\n"
        "sys.stdin.read()\n"
    )
    keeper = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    (pid,) = map(int, keeper.stdout.readline().split())

    keeper.send_signal(signal.SIGKILL)
    keeper.wait()
    keeper.stdin.close()
    keeper.stdout.close()

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _is_alive(pid):
        time.sleep(0.05)
    assert not _is_alive(pid)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_keeper_blames_nobody_when_the_child_is_killed_between_conversations(child):
    ((_, (_, pid)),) = child.map(troublesome, [1])
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)

    assert outcomes(child, ["a", "b"]) == ["fine", "fine"]

"""The demo, as it is run by its readers, and what it says about each fault."""

import subprocess
import sys
from collections import Counter

import demo
import httpx
import pytest
from serving import serving

FAULTS = (
    "wrong answers",
    '"didn\'t stop" errors',
    "other errors",
    "events lost, told 201",
    "rejections not recorded",
    "connections left out",
)


def test_shows_the_fault_and_its_absence(tmp_path):
    """It ends with status 0, each fault in its column and none on the right."""
    finished = subprocess.run(  # noqa: S603
        [sys.executable, demo.__file__],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )

    assert "" == finished.stderr
    assert 0 == finished.returncode
    assert "\x1b" not in finished.stdout
    lines = [line.strip("│").split("│") for line in finished.stdout.splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines if len(line) == 4]
    rows = {label: tuple(map(int, numbers)) for label, *numbers in cells}
    answers = [rows[f"answered {status}"] for status in (200, 201, 400, 500)]
    assert [(30, 170, 0, 100), (30, 170, 100, 0), (30, 150, 100, 20)] == [
        *zip(*answers, strict=True)
    ]
    faults = [rows[label] for label in FAULTS]
    assert [(120, 120, 0, 20, 100), (20, 0, 0, 20, 100), (0,) * 5] == [
        column[:-1] for column in zip(*faults, strict=True)
    ]
    assert 0 == rows["connections left out"][-1]
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", FAULTS)
def test_exit_status(monkeypatch, capsys, fault):
    """A single fault on the right is exit status 1."""
    findings = dict.fromkeys(FAULTS, 0)

    def try_out(session, file, advance):
        found = findings | ({fault: 1} if session == "safe" else {})
        return Counter({201: 300}), found

    monkeypatch.setattr(demo, "try_out", try_out)

    assert 1 == demo.main()
    assert fault in capsys.readouterr().out


def test_wrong_answers():
    """Each answer that is not the right one for its delivery counts, and no other."""
    right = {body: [400] for body in demo.BAD}
    right |= {body: [201] for body in demo.EVENTS}
    right |= {body: [500] for body in demo.REFUSED}
    for body in demo.REDELIVERIES:
        right[body] = [200, 201]
    statuses = [right[body].pop() for body in demo.DELIVERIES]

    assert 0 == demo.count_wrong(statuses)
    for index, status in enumerate(statuses):
        changed = [*statuses[:index], 503, *statuses[index + 1 :]]
        assert 1 == demo.count_wrong(changed), status


def test_server_ends_with_its_block(service):
    """The server is down when its block is left, also by an exception."""
    with pytest.raises(LookupError), serving(service.app) as url:
        assert 404 == httpx.get(url).status_code
        raise LookupError

    with pytest.raises(httpx.ConnectError):
        httpx.get(url)

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
    '"didn\'t stop" errors logged',
    "other errors logged",
    "events lost",
    "rejections not recorded",
    "connections left checked out",
)


def test_shows_the_fault_and_its_absence(tmp_path):
    """It ends with status 0, the faults on the left and none on the right."""
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
    cells = [[cell.strip() for cell in line] for line in lines if len(line) == 3]
    rows = {label: (int(left), int(right)) for label, left, right in cells}
    assert 0 == sum(rows[label][1] for label in FAULTS)
    assert [50, 150, 100] == [rows[f"answered {n}"][1] for n in (200, 201, 400)]
    assert (0, 100) == rows["answered 400"]
    assert 0 not in [rows[label][0] for label in FAULTS]
    assert 40 == rows["connections left checked out"][0]
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
    for body in demo.REDELIVERIES:
        right[body] = [200, 201]
    statuses = [right[body].pop() for body in demo.DELIVERIES]

    assert 0 == demo.count_wrong(statuses)
    for index, status in enumerate(statuses):
        changed = [*statuses[:index], 500, *statuses[index + 1 :]]
        assert 1 == demo.count_wrong(changed), status


def test_server_ends_with_its_block(service):
    """The server is down when its block is left, also by an exception."""
    with pytest.raises(LookupError), serving(service.app) as url:
        assert 404 == httpx.get(url).status_code
        raise LookupError

    with pytest.raises(httpx.ConnectError):
        httpx.get(url)

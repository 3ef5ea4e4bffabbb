"""Fixtures of the tests of MariaDB."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from backends import wait_until_mariadb
from innodb import WAITS, change, weightier


@pytest.fixture
def deadlock(observer: Engine) -> Callable[[Session], None]:
    """Have a session be chosen to give way in a deadlock, and be told so."""
    with observer.begin() as connection:
        for id_ in (101, 102):
            connection.execute(text(f"INSERT INTO note VALUES ({id_}, '{id_}')"))

    def lock_each_other_out(session: Session) -> None:
        change(session, 101)
        with weightier(observer) as rival, observer.connect() as look:
            change(rival, 102)
            waiting = threading.Thread(target=change, args=(rival, 101))
            waiting.start()
            try:
                wait_until_mariadb(look, WAITS.format("LOCK WAIT"))
                change(session, 102)
            finally:
                waiting.join()

    return lock_each_other_out

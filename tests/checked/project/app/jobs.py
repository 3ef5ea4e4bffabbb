"""Jobs that call what is a dependency of this library's in another file.

A fault: it is for Depends() alone now.
"""

import app.deps
from app.deps import get_own_session as get_session

from . import deps
from .deps import get_own_session, own

session = next(get_own_session())  # finds SAFE008


async def by_another_name():
    async for session in get_session():  # finds SAFE008
        yield session


async def by_module():
    await deps.get_own_session()  # finds SAFE008
    await app.deps.get_own_session()  # finds SAFE008


async def in_a_function():
    from app.routes import get_own_session as get_db

    await get_db()  # finds SAFE008


def by_a_variable(deps, own_deps):
    deps.get_own_session()
    own_deps.get_own_session()


def by_its_own_attribute():
    return own.get_own_session()


class Deps:
    app = None

    def get_own_session(self):
        return self.get_own_session()

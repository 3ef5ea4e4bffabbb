"""The pytest plugin's async sessions are of the event loop that the test runs in."""

import pytest

from joined import CONFTEST, IMPORTS
from projects import Project

pytestmark = pytest.mark.once
pytest_plugins = ["pytester", "plugin_fixtures"]
PROJECT = (IMPORTS, CONFTEST)
ASYNC = """
    async def add(bind, text):
        async with async_session_scope(bind) as session:
            session.add(Note(text=text))
            await session.flush()
            if text == "bad":
                raise ValueError(text)

    {mark}
    async def test_session(async_joined_session):
        assert loops == [asyncio.get_running_loop()]
        async_joined_session.add(Note(text="kept"))
        await async_joined_session.commit()
        async_joined_session.add(Note(text="dropped"))
        await async_joined_session.flush()
        await async_joined_session.rollback()
        found = await async_joined_session.scalars(select(Note.text))
        assert found.all() == ["kept"]

    {mark}
    async def test_bind(
        async_joined_sessionmaker, async_joined_connection, async_joined_session
    ):
        await add(async_joined_sessionmaker, "first")
        with pytest.raises(ValueError, match="bad"):
            await add(async_joined_connection, "bad")
        await add(async_joined_connection, "second")
        found = await async_joined_session.scalars(select(Note.text))
        assert found.all() == ["first", "second"]

    get_session = async_session_dependency(async_engine)
    app = FastAPI()

    @app.post("/notes/{{text}}", status_code=201)
    async def add_note(
        text: str, session: Annotated[AsyncSession, Depends(get_session)]
    ) -> int:
        note = Note(text=text)
        session.add(note)
        await session.flush()
        if text == "bad":
            raise HTTPException(400)
        return note.id

    {mark}
    async def test_dependency(async_joined_get_session, async_joined_session):
        app.dependency_overrides[get_session] = async_joined_get_session
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport) as client:
            for text, status in [("a", 201), ("bad", 400), ("b", 201)]:
                response = await client.post(f"http://test/notes/{{text}}")
                assert response.status_code == status
        found = await async_joined_session.scalars(select(Note.text))
        assert found.all() == ["a", "b"]
    """


@pytest.mark.parametrize(
    "mark, options",
    [
        ("@pytest.mark.anyio", {}),
        ("", {"anyio_mode": "auto"}),
        ("@pytest.mark.asyncio", {}),
        ("", {"asyncio_mode": "auto"}),
        ('@pytest.mark.asyncio(loop_scope="module")', {}),
        ("@pytest.mark.asyncio", {"asyncio_default_test_loop_scope": "session"}),
    ],
    ids=["anyio", "anyio_auto", "strict", "auto", "loop_of_module", "loop_of_session"],
)
def test_async(project: Project, mark: str, options: dict[str, str]) -> None:
    """The async fixtures run in the event loop of the test, whoever runs that."""
    project.ini(**options)

    project.run(ASYNC.format(mark=mark)).assert_outcomes(passed=3)


def test_async_without_pytest_asyncio(project: Project) -> None:
    """anyio's plugin is enough."""
    tests = ASYNC.format(mark="@pytest.mark.anyio")

    result = project.run(tests, "-p", "no:asyncio", subprocess=True)

    result.assert_outcomes(passed=3)


def test_async_without_a_runner(project: Project) -> None:
    """Where no plugin runs the test in an event loop, the error says what to do."""
    result = project.run("def test(async_joined_session): pass", "-p", "no:asyncio")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Mark the test with @pytest.mark.anyio, or install*"])


def test_async_on_trio(project: Project) -> None:
    """SQLAlchemy knows asyncio alone, and whoever runs on trio is told."""
    result = project.run(
        """
        @pytest.fixture
        def anyio_backend():
            return "trio"

        @pytest.mark.anyio
        async def test(async_joined_session):
            pass
        """
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture anyio_backend that returns 'asyncio'."])


def test_bare_async_engine(project: Project) -> None:
    """Sessions of a bare async engine do not expire, as those of a scope."""
    project.run(
        """
        @pytest.mark.anyio
        async def test(async_joined_session):
            note = Note(text="kept")
            async_joined_session.add(note)
            await async_joined_session.commit()
            assert note.text == "kept"
        """
    ).assert_outcomes(passed=1)

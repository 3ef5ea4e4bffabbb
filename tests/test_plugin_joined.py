"""The pytest plugin's sessions commit, and nothing of it is left after the test."""

import pytest

from joined import CONFTEST, IMPORTS
from projects import Project

pytestmark = pytest.mark.once
pytest_plugins = ["pytester", "plugin_fixtures"]
PROJECT = (IMPORTS, CONFTEST)


def test_session(project: Project) -> None:
    """The session commits and rolls back as any other, and nothing is left."""
    project.run(
        """
        def test(joined_session):
            joined_session.add(Note(text="kept"))
            joined_session.commit()
            joined_session.add(Note(text="dropped"))
            joined_session.flush()
            joined_session.rollback()
            assert joined_session.scalars(select(Note.text)).all() == ["kept"]

        def test_begins_with_a_read(joined_session):
            assert joined_session.scalars(select(Note.text)).all() == []
            joined_session.add(Note(text="kept"))
            joined_session.commit()

        def test_left_uncommitted(joined_session):
            joined_session.add(Note(text="pending"))
            joined_session.flush()

        def test_failed_flush(joined_session):
            joined_session.add_all([Note(text="same"), Note(text="same")])
            with pytest.raises(IntegrityError):
                joined_session.flush()
        """
    ).assert_outcomes(passed=4)


@pytest.mark.parametrize("bind", ["joined_sessionmaker", "joined_connection"])
def test_bind(project: Project, bind: str) -> None:
    """Code that takes a bind commits and rolls back one unit of work at a time."""
    project.run(
        f"""
        def place(bind, text):
            with session_scope(bind) as session:
                session.add(Note(text=text))
                session.flush()
                if text == "bad":
                    raise ValueError(text)

        def test({bind}, joined_session):
            place({bind}, "first")
            with pytest.raises(ValueError, match="bad"):
                place({bind}, "bad")
            with pytest.raises(IntegrityError):
                place({bind}, "first")
            place({bind}, "second")
            assert joined_session.scalars(select(Note.text)).all() == [
                "first",
                "second",
            ]
        """
    ).assert_outcomes(passed=1)


def test_connection_with_a_class(project: Project) -> None:
    """Code that names a session class itself takes the connection as its bind."""
    project.run(
        """
        class Own(Session):
            pass

        def test(joined_connection):
            with session_scope(joined_connection, class_=Own) as session:
                assert isinstance(session, Own)
                session.add(Note(text="kept"))
        """
    ).assert_outcomes(passed=1)


def test_connection_refuses_to_commit(project: Project) -> None:
    """A commit of the connection itself would be for ever, and is refused."""
    project.run(
        """
        def test(joined_connection):
            joined_connection.execute(Note.__table__.insert().values(text="once"))
            with pytest.raises(ScopeMisuse, match="ends in a rollback, and commit"):
                joined_connection.commit()

        def test_savepoint(joined_connection):
            with joined_connection.begin_nested():
                joined_connection.execute(Note.__table__.insert().values(text="once"))
        """
    ).assert_outcomes(passed=2)


def test_dependency(project: Project) -> None:
    """Each request commits or rolls back its own session, in the test's transaction."""
    project.run(
        """
        get_session = session_dependency(engine)
        app = FastAPI()

        @app.post("/notes/{text}", status_code=201)
        def add(text: str, session: Annotated[Session, Depends(get_session)]) -> int:
            note = Note(text=text)
            session.add(note)
            session.flush()
            if text == "bad":
                raise HTTPException(400)
            return note.id

        @pytest.fixture
        def client(joined_get_session):
            app.dependency_overrides[get_session] = joined_get_session
            yield TestClient(app)
            app.dependency_overrides.clear()

        def test(client, joined_session):
            for text, status in [("a", 201), ("bad", 400), ("b", 201)]:
                assert client.post(f"/notes/{text}").status_code == status
            assert joined_session.scalars(select(Note.text)).all() == ["a", "b"]
        """
    ).assert_outcomes(passed=1)


def test_a_session_left_open_is_a_leak(project: Project) -> None:
    """A joined session that the code under test leaves open is found too."""
    result = project.run(
        """
        kept = []

        def test(joined_sessionmaker):
            kept.append(joined_sessionmaker())
            kept[0].add(Note(text="open"))
            kept[0].flush()

        def test_after(joined_session):
            assert joined_session.scalars(select(Note.text)).all() == []
        """
    )

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*left open 1 session:", "*kept?0?.add(Note(*"])


def test_xdist(project: Project) -> None:
    """Workers of pytest-xdist have transactions of their own."""
    project.run(
        """
        @pytest.mark.parametrize("number", range(6))
        def test(joined_session, number):
            joined_session.add(Note(text="same"))
            joined_session.commit()
            assert joined_session.scalars(select(Note.text)).all() == ["same"]
        """,
        "-n",
        "2",
        subprocess=True,
    ).assert_outcomes(passed=6)

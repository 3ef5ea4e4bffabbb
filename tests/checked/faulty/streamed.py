"""Endpoints whose stream uses a session that has ended before the response is sent.

A fault: a session of session_dependency() refuses to be used, and breaks the stream
off; one of a generator with scope="function" opens again, with nobody to close it.
"""

from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from starlette import responses

from safesession import session_scope
from safesession.fastapi import async_session_dependency, session_dependency

app = FastAPI()
engine = create_engine("sqlite:///app.db")
async_engine = create_async_engine("sqlite+aiosqlite:///app.db")
get_session = session_dependency(engine)
get_async_session = async_session_dependency(async_engine)
get_lasting = session_dependency(engine, scope="request")
get_decided = session_dependency(engine, scope=app.title)


def get_db():
    with Session(engine) as session:
        yield session


def get_closed():
    session = Session(engine)
    try:
        yield session
    finally:
        session.close()


def get_unclosed():
    session = Session(engine)
    yield session


SessionDep = Annotated[Session, Depends(get_session)]
FunctionDep = Annotated[Session, Depends(get_db, scope="function")]


def numbers(session: Session):
    for number in session.scalars(select(1)):
        yield str(number)


def no_generator(session: Session):
    return [str(number) for number in session.scalars(select(1))]


def of_another_session(session: Session):
    session = Session(engine)
    yield str(session.scalar(select(1)))


session = Session(engine)


def of_the_module():
    yield str(session.scalar(select(1)))


@app.get("/closure")
def by_closure(session: SessionDep):
    def lines():
        yield "numbers\n"
        for number in session.scalars(select(1)):
            yield str(number)

    return StreamingResponse(lines(), media_type="text/csv")  # finds SAFE014


@app.get("/request")
def whatever_depends_says(
    session: Annotated[Session, Depends(get_session, scope="request")],
):
    return responses.StreamingResponse(
        media_type="text/csv",
        content=numbers(session),  # finds SAFE014
    )


@app.get("/async")
async def by_async_closure(session: AsyncSession = Depends(get_async_session)):
    async def lines():
        async for number in await session.stream_scalars(select(1)):
            yield str(number)

    return StreamingResponse(lines())  # finds SAFE014


@app.get("/argument")
def by_argument(session: SessionDep):
    def lines(rows: Session):
        rows.execute(text("CREATE TABLE t (i INTEGER)"))
        rows.commit()
        yield ""

    response = StreamingResponse(lines(rows=session))  # finds SAFE014
    response.headers["X-Numbers"] = "1"
    return response


@app.get("/function")
def at_function(session: FunctionDep):
    return StreamingResponse(numbers(session))  # finds SAFE014


@app.get("/function/closed")
def at_function_and_closed(
    session: Session = Depends(get_closed, use_cache=False, scope="function"),
):
    return StreamingResponse(numbers(session))  # finds SAFE014


@app.get("/function/unclosed")
def at_function_and_never_closed(
    session: Session = Depends(get_unclosed, scope="function"),
):
    return StreamingResponse(numbers(session))


@app.get("/function/closes")
def closed_by_the_stream(session: FunctionDep):
    def lines():
        try:
            yield str(session.scalar(select(1)))
        finally:
            session.close()

    return StreamingResponse(lines())


@app.get("/generator")
def of_a_generator(session: Session = Depends(get_db)):
    return StreamingResponse(numbers(session))


@app.get("/lasting")
def that_lasts(session: Session = Depends(get_lasting)):
    return StreamingResponse(numbers(session))


@app.get("/decided")
def decided_elsewhere(session: Session = Depends(get_decided)):
    return StreamingResponse(numbers(session))


@app.get("/own")
def of_its_own(session: SessionDep):
    count = session.scalar(select(1))

    def lines():
        yield str(count)
        with session_scope(engine) as session:
            yield str(session.scalar(select(1)))

    if count is None:
        return StreamingResponse(of_the_module())
    return StreamingResponse(lines())


@app.get("/read")
def read_before(session: SessionDep):
    def lines():
        yield str(session.info)

    rows = list(numbers(session))
    if rows:
        return PlainTextResponse(numbers(session))
    if engine.echo:
        return StreamingResponse(no_generator(session))
    if engine.pool:
        return StreamingResponse(of_another_session(session))
    return StreamingResponse(lines())


@app.get("/many")
def of_what_is_not_seen(session: SessionDep, others: Session):
    made = numbers(session)
    if engine.echo:
        return StreamingResponse(made)
    if engine.pool:
        return StreamingResponse(*made)
    if engine.name:
        return StreamingResponse(numbers(others))
    if engine.url:
        return StreamingResponse(open("numbers.csv"))
    return StreamingResponse(numbers(*made))


def no_endpoint(session: SessionDep):
    return StreamingResponse(numbers(session))


@app.get("/deep")
def further_in(session: SessionDep):
    def outer(session):
        def lines():
            yield str(session.scalar(select(1)))

        return StreamingResponse(lines())

    return outer(Session(engine))


@app.get("/parameter")
def in_a_parameter(session: SessionDep):
    def lines(session=Session(engine)):
        yield str(session.scalar(select(1)))

    return StreamingResponse(lines())


def create_app(session: Session):
    inner = FastAPI()

    def lines():
        yield str(session.scalar(select(1)))

    @inner.get("/outer")
    def of_the_function_around(session: SessionDep):
        return StreamingResponse(lines())

    return inner

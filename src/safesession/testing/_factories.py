"""A session factory, however written, becomes a harness or a clear error."""

import inspect
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, get_args, get_origin

from sqlalchemy.orm import Session, sessionmaker

from safesession._binds import describe, suspends
from safesession._extras import require
from safesession.errors import InvalidArgument

from ._harness import Harness, InAsyncWith, InWith

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.params import Depends

    from ._request import InRequest


def harness_for(factory: Any, route: str | None = None) -> Harness:
    """Return a harness for what opens sessions."""
    app = _app(factory)
    if app is not None:
        from ._request import InRequest

        path, depends = _session_of_route(app, route)
        return InRequest(
            depends,
            like=app,
            note=f"Its session is that of the route {path}, from "
            f"{describe(depends.dependency)}.",
        )
    if route is not None:
        raise InvalidArgument(
            f"verify() got route={route!r} beside {describe(factory)}. A route is of "
            "an app: pass the FastAPI app, or leave route out."
        )
    if is_dependency(factory):
        require("fastapi", extra="fastapi", wanted="verify() of a dependency")
        from ._request import InRequest

        return InRequest(_as_depends(factory))
    return _in_block(factory)


def is_in_request(harness: Harness) -> "TypeGuard[InRequest]":
    """Tell a harness that needs FastAPI, without importing it."""
    return hasattr(harness, "depends")


def is_dependency(factory: Any) -> bool:
    """Tell what is written for `Depends` from what returns a context manager."""
    return suspends(factory) or any(True for _ in _dependencies(factory))


def _as_depends(dependency: Callable[..., Any]) -> "Depends":
    from fastapi.params import Depends

    return Depends(dependency)


def _in_block(factory: Any) -> Harness:
    if isinstance(factory, sessionmaker) or _is_async_sessionmaker(factory):
        # A session that it returns commits nothing by itself.
        return _in_block(factory.begin)
    made: Any = factory() if _is_function(factory) else None
    if hasattr(made, "__aenter__"):
        return InAsyncWith(factory)
    if hasattr(made, "__enter__"):
        return InWith(factory)
    whence = "" if made is None else f", which returned {describe(made)}"
    raise InvalidArgument(
        f"verify() got {describe(factory)}{whence}. Pass a sessionmaker, a callable "
        "that returns a context manager (as in lambda: session_scope(engine)), a "
        "dependency written for FastAPI, or an app."
    )


def _app(factory: Any) -> "FastAPI | None":
    if find_spec("fastapi") is None:
        return None
    from fastapi import FastAPI

    return factory if isinstance(factory, FastAPI) else None


def _session_of_route(app: "FastAPI", path: str | None) -> "tuple[str, Depends]":
    """Return where the first parameter for a session is, and what declares it."""
    # Several may be at one path, each for a method of its own.
    endpoints = list(_endpoints(app))
    for at, endpoint in endpoints:
        if path in (None, at):
            for depends in _sessions(endpoint):
                return at, depends
    where = "any route" if path is None else f"the route {path!r}"
    known = ", ".join({at: None for at, _ in endpoints})
    raise InvalidArgument(
        f"verify() found no parameter annotated as a session at {where} of the app, "
        f"which has: {known or 'no route'}. Name a route whose endpoint has one, or "
        "pass the dependency itself."
    )


def _endpoints(app: "FastAPI") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the routes of an app and of the apps below it: paths and endpoints."""
    from fastapi import FastAPI, routing

    # Since FastAPI 0.163 an included router is one route.
    iterate: Any = getattr(routing, "iter_route_contexts", iter)
    for route in iterate(app.routes):
        original = getattr(route, "original_route", route)
        if isinstance(original, routing.APIRoute):
            yield route.path, route.endpoint
        elif isinstance(getattr(original, "app", None), FastAPI):
            for path, endpoint in _endpoints(original.app):
                yield f"{route.path}{path}", endpoint


def _sessions(function: Callable[..., Any]) -> Iterator["Depends"]:
    for annotation, depends in _dependencies(function):
        if _is_session_class(annotation):
            yield depends
        else:
            # Depends() alone is of the class that is annotated.
            yield from _sessions(depends.dependency or annotation)


def _dependencies(function: Any) -> Iterator[tuple[Any, "Depends"]]:
    """Yield the annotation of each parameter that FastAPI resolves, and its Depends."""
    if find_spec("fastapi") is None or not callable(function):
        return
    from fastapi.params import Depends

    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError):
        return
    for parameter in parameters:
        annotation = parameter.annotation
        declared = [parameter.default]
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            declared += metadata
        for each in declared:
            if isinstance(each, Depends):
                yield annotation, each


def _is_session_class(annotation: Any) -> bool:
    return inspect.isclass(annotation) and (
        issubclass(annotation, Session) or hasattr(annotation, "run_sync")
    )


def _is_function(factory: object) -> bool:
    return callable(factory) and not inspect.isclass(factory)


def _is_async_sessionmaker(factory: Any) -> bool:
    # By name: importing sqlalchemy.ext.asyncio would require greenlet.
    return type(factory).__name__ == "async_sessionmaker"

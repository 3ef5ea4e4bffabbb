"""What is done with a session by the function that it is given to."""

import ast
import re
from dataclasses import dataclass

from ._flow import Function, outwards, within
from ._project import Project
from ._source import Source, parameters

_WRITES = {
    "add",
    "add_all",
    "bulk_insert_mappings",
    "bulk_save_objects",
    "bulk_update_mappings",
    "delete",
    "merge",
}
_STATEMENTS = {"exec", "execute", "scalar", "scalars", "stream", "stream_scalars"}
_READS = {*_STATEMENTS, "get", "get_one"}
# What has a query executed.
_OF_QUERIES = {
    "all",
    "count",
    "delete",
    "first",
    "get",
    "one",
    "one_or_none",
    "scalar",
    "update",
}
_HARMLESS = {
    *_READS,
    *_WRITES,
    "begin_nested",
    "expire",
    "expire_all",
    "flush",
    "query",
    "refresh",
}
_WRITING = re.compile(r"\s*(insert|update|delete|replace|merge)\b", re.IGNORECASE)
_READING = re.compile(r"\s*(select|values|with)\b", re.IGNORECASE)


@dataclass
class Work:
    """What is surely done with a session, and whether it may be ended."""

    # The first calls in the function that read and write, or have another do it.
    reads: ast.Call | None = None
    writes: ast.Call | None = None
    # Somebody may commit, roll back or close it, or it is not seen what is done.
    may_end: bool = False


def work_of(
    project: Project,
    source: Source,
    function: Function,
    name: str,
    above: tuple[Function, ...] = (),
) -> Work:
    """Return what a function does with the session that a parameter of it is.

    Args:
        project: The files given, in which calls are followed.
        source: The file of the function.
        function: The function.
        name: The parameter.
        above: The functions that it is called by.
    """
    work = Work()
    own = {*within(function)}
    body = (node for statement in function.body for node in ast.walk(statement))
    for node in sorted(
        (node for node in body if isinstance(node, ast.Name) and node.id == name),
        key=lambda node: (node.lineno, node.col_offset),
    ):
        match source.parents[source.parents[node]]:
            case _ if node not in own:
                # In a function of its own, that is called who knows when.
                work.may_end = True
            case ast.Call(ast.Attribute(value, method)) as call if value is node:
                _called(source, work, call, method)
            case _:
                _handed(project, source, work, node, (*above, function))
    return work


def _called(source: Source, work: Work, call: ast.Call, method: str) -> None:
    last = _last_method(source, call, method)
    reads, writes = method in _READS, method in _WRITES
    if method in _STATEMENTS:
        kind = _kind_of(source, call)
        work.may_end |= kind is None
        writes = kind == "writes"
    elif method == "query":
        writes = last in ("delete", "update")
        reads = last in _OF_QUERIES
    elif method == "rollback":
        # Of an exception that is caught: elsewhere it may be all that is ever done.
        handlers = (
            isinstance(node, ast.ExceptHandler)
            for node in outwards(call, source.parents)
        )
        work.may_end |= not any(handlers)
    else:
        work.may_end |= method not in _HARMLESS
    if writes:
        work.writes = work.writes or call
    if reads:
        work.reads = work.reads or call


def _last_method(source: Source, call: ast.Call, method: str) -> str:
    """Return the last method of a chain that begins with a call."""
    while True:
        attribute = source.parents[call]
        following = source.parents[attribute]
        if not isinstance(attribute, ast.Attribute) or not isinstance(
            following, ast.Call
        ):
            return method
        call, method = following, attribute.attr


def _kind_of(source: Source, call: ast.Call) -> str | None:
    """Tell whether a statement that is executed reads or writes, if it can be seen."""
    statement: ast.expr | None = next(iter(call.args), None)
    if isinstance(statement, ast.Name):
        statement = _assigned(source, statement)
    root = statement
    while isinstance(root, ast.Call) and isinstance(root.func, ast.Attribute):
        if isinstance(root.func.value, ast.Name):
            break
        root = root.func.value
    if not isinstance(root, ast.Call):
        return "reads"
    if source.is_of_sqlalchemy(root.func, "insert", "update", "delete"):
        return "writes"
    if not source.is_of_sqlalchemy(root.func, "text"):
        return "reads"
    match root.args:
        case [ast.Constant(str(sql))] if _WRITING.match(sql):
            return "writes"
        case [ast.Constant(str(sql))] if _READING.match(sql):
            return "reads"
    return None


def _assigned(source: Source, name: ast.Name) -> ast.expr | None:
    """Return what a name of a function is assigned, if it is once."""
    function = next(iter(source.functions_around(name)))
    values = [
        node.value
        for node in within(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id == name.id
    ]
    return values[0] if len(values) == 1 else None


def _handed(
    project: Project,
    source: Source,
    work: Work,
    node: ast.Name,
    above: tuple[Function, ...],
) -> None:
    """Look at what is done with a session by a function that it is given to."""
    given = source.parents[node]
    call = source.parents[given] if isinstance(given, ast.keyword) else given
    inner = Work(may_end=True)
    if isinstance(call, ast.Call) and (found := project.function(source, call.func)):
        where, function = found
        parameter = parameter_given(function, call, node)
        waits = isinstance(source.parents[call], ast.Await)
        if function in above:
            return
        if parameter and waits == isinstance(function, ast.AsyncFunctionDef):
            inner = work_of(project, where, function, parameter, above)
        if inner.reads:
            work.reads = work.reads or call
        if inner.writes:
            work.writes = work.writes or call
    work.may_end |= inner.may_end


def parameter_given(function: Function, call: ast.Call, node: ast.Name) -> str | None:
    """Return the parameter of a function that an argument of a call is."""
    known = {parameter.arg for parameter in parameters(function)}
    for word in call.keywords:
        if word.value is node and word.arg in known:
            return word.arg
    positional = [*function.args.posonlyargs, *function.args.args]
    for parameter, argument in zip(positional, call.args, strict=False):
        if argument is node:
            return parameter.arg
        if isinstance(argument, ast.Starred):
            break
    return None

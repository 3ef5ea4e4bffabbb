"""What a session has begun, and on which connections."""

from sqlalchemy import Connection, Transaction
from sqlalchemy.orm import Session


def begun_by(session: Session) -> dict[Connection, Transaction]:
    """Return the connections that `session` uses, each with what it began on it."""
    transaction = session.get_transaction()
    if transaction is None:
        return {}
    # Private in SQLAlchemy, whose public SessionTransaction.connections (from 2.1.7 on)
    # does not tell what was begun.
    return {entry[0]: entry[1] for entry in transaction._connections.values()}


def is_lent(session: Session, connection: Connection) -> bool:
    """Tell whether a connection that the session uses is not its own to close."""
    transaction = session.get_transaction()
    # Private, too.
    return transaction is not None and not transaction._connections[connection][3]

"""Count the connections that are out of an engine's pool."""

from sqlalchemy import Engine, event


class Checkouts:
    """The connections out now, and the most that were out at once.

    Counted from the pool's events, as a pool that is disposed of forgets what is out.
    """

    def __init__(self, engine: Engine) -> None:
        self._out: set[int] = set()
        self.peak = 0
        event.listen(engine, "checkout", self._on_checkout)
        event.listen(engine, "checkin", self._on_checkin)

    @property
    def out(self) -> int:
        return len(self._out)

    def _on_checkout(self, connection: object, record: object, proxy: object) -> None:
        self._out.add(id(record))
        self.peak = max(self.peak, len(self._out))

    def _on_checkin(self, connection: object, record: object) -> None:
        self._out.discard(id(record))

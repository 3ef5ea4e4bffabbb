"""What needs a package that the core does without."""

from importlib.util import find_spec


def require(package: str, *, extra: str, wanted: str) -> None:
    """Raise `MissingExtra` where `package` is not installed."""
    if find_spec(package) is None:
        # Imported here: with it comes SQLAlchemy.
        from .errors import MissingExtra

        raise MissingExtra(
            f"{wanted} needs {package}, which is not installed. "
            f"Install it with: pip install 'safesession[{extra}]'"
        )

"""How fast safesession is beside other ways to hold a session, measured in one run.

``nox -s bench`` runs all of it; ``docs/performance.md`` says what is measured and how.
"""

"""The project that a test of the pytest plugin runs."""

import pytest

from projects import Project


@pytest.fixture
def project(
    request: pytest.FixtureRequest, collected: None, pytester: pytest.Pytester
) -> Project:
    """Return a project that begins as the test's module says by its PROJECT."""
    return Project(pytester, *request.module.PROJECT)

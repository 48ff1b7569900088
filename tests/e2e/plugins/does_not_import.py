"""A file that cannot be imported, among others that can."""

from nowhere import nothing  # type: ignore[import-not-found]  # noqa: F401

from apisix.runner.plugin.base import Base


class DoesNotImport(Base):
    pass

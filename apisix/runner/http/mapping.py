"""What a mapping of text offers beyond its few own methods.

Rules that live here: a compiled class can inherit from compiled ones alone, so this stands in for
`collections.abc.MutableMapping`, which it is registered as, and which it is to type checkers (mapping.pyi).
"""

from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView


class TextMapping:
    """A mapping of text to text. Subclasses have `_find` and the five methods that MutableMapping asks for."""

    __slots__ = ()

    __hash__ = None
    __reversed__ = None
    popitem = MutableMapping.popitem
    setdefault = MutableMapping.setdefault

    def _find(self, name: str) -> str | None:
        """A name's first value, if it has one."""
        raise NotImplementedError

    def get(self, name: str, default: object = None) -> object:
        """A name's first value, or the default where it has none.

        Example:
            >>> from apisix.runner.http.fields import Args
            >>> Args([("a", "1")]).get("b", "none")
            'none'
        """
        value = self._find(name)
        return default if value is None else value

    def pop(self, name: str, *default: object) -> object:
        """Remove a name. Returns its first value, or the default where it has none.

        Raises:
            KeyError: it has none, and there is no default.
        """
        value = self._find(name)
        if value is None and default:
            return default[0]
        del self[name]
        return value

    def keys(self) -> KeysView[str]:
        """Every name."""
        return KeysView(self)

    def values(self) -> ValuesView[str]:
        """The first value of every name."""
        return ValuesView(self)

    def items(self) -> ItemsView[str, str]:
        """Every name with its first value."""
        return ItemsView(self)

    def __eq__(self, other: object) -> bool:
        return Mapping.__eq__(self, other)


MutableMapping.register(TextMapping)

from abc import ABCMeta
from collections.abc import MutableMapping

class TextMapping(MutableMapping[str, str], metaclass=ABCMeta):
    def _find(self, name: str) -> str | None: ...

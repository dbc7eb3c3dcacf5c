"""Import this first: a machine lent for benchmarks may lack packages that no training step uses."""

import importlib.util
import sys
from types import ModuleType
from typing import Any

NOT_NEEDED = ("safetensors.torch",)


def _stand_in(name: str) -> ModuleType:
    module = ModuleType(name)

    def fail(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return lambda *arguments, **options: sys.exit(f"{name}.{attribute} is called, but {name} is not installed")

    module.__getattr__ = fail  # type: ignore[method-assign]
    return module


for _name in NOT_NEEDED:
    _top = _name.partition(".")[0]
    if importlib.util.find_spec(_top) is None:
        sys.modules[_top], sys.modules[_name] = ModuleType(_top), _stand_in(_name)

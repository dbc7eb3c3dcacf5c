"""Two-phase post-training of ECG foundation models (Zhou et al. 2025, arXiv 2509.12991)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecg_lightning.trained_run import load_run

__all__ = ["__version__", "load_run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load_run`, imported when it is asked for: it brings torch, and the command line's help must not wait for it."""
    if name == "load_run":
        from ecg_lightning.trained_run import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Two-phase post-training of ECG foundation models (Zhou et al. 2025, arXiv 2509.12991)."""

__version__ = "0.1.0"

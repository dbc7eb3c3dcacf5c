"""The demo: the whole story on 422 real records of PTB-XL that ship with the package (CITATION-PTB-XL.txt)."""

from ecg_lightning.demo.story import demo

__all__ = ["demo"]

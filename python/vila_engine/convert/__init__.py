"""From a published VILA 1.5 checkpoint folder to a model folder of this engine (docs/FORMATS.md)."""

from vila_engine.convert.conversion import ConvertReport, convert

__all__ = ["ConvertReport", "convert"]

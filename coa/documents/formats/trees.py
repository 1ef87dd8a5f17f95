"""The one place that imports lxml, which comes without types."""

from __future__ import annotations

from typing import TypeAlias

from lxml import etree  # type: ignore[import-untyped]

__all__ = ["Element", "etree"]

Element: TypeAlias = etree._Element

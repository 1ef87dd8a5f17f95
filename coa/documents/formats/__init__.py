"""Readers of single file formats, by what kind of file they read."""

from coa.documents.formats.raw import FormatReader, RawText
from coa.documents.formats.registry import FORMATS, plugin_for, plugin_named

__all__ = ["FORMATS", "FormatReader", "RawText", "plugin_for", "plugin_named"]

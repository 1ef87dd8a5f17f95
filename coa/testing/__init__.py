"""Doubles and helpers for tests of coa and of what is built on it."""

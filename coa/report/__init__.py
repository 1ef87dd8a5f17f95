"""Runs, batches and evaluations as HTML pages: one file each, nothing loaded from anywhere."""

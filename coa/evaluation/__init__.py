"""Measuring strategies on one's own documents and models: suites, official scores, costs, intervals, reports."""

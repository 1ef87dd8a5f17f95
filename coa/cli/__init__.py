"""The `coa` command: stdout carries the answer or JSON and nothing else, all the rest goes to stderr."""

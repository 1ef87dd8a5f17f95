"""coa: Chain-of-Agents reading of documents longer than a model's window."""

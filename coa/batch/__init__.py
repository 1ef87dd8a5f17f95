"""Batches: folders of documents, on one machine or many, without ever paying twice."""

"""Merges the flows of many nodes over mutual TLS."""

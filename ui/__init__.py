"""The service map in the browser."""

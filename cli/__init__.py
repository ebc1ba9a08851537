"""The palomar command line."""

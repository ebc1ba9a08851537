"""Pure functions from messages to text: no sockets, no clock, no terminal."""

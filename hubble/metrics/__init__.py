"""Hubble's configurable flow metrics with context options, counted per block from the flow store."""

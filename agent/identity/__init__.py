"""Identities in pure code: which labels count, the reserved ones, those of CIDRs, all of them by number."""

"""The vocabulary: labels, identities, verdicts, errors, paths and small bricks every storey shares."""

"""The vocabulary: labels, identities, verdicts, errors, paths and small runtime bricks every storey shares."""

"""Network policy in pure code: documents to rules, rules to the entries of each endpoint's policy map."""

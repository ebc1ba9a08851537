"""One vectorised question per field of a FlowFilter; combined into filters by `hubble.filters`.

Pure. Input: the values of a field; output: a predicate that answers per row of a block.
"""

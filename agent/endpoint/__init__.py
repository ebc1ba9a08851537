"""The endpoints of a node: what they are, how they come, live, go, and come back after a restart.

One file per concern: `model` (values and states), `request` (what a client asks), `store` (state files),
`statuslog`, `datapath` (what is needed of the kernel), `manager` (add and delete), `restore`.
"""

"""The simulated archive: a tree of PTB-XL's shape, made from a beating dipole; no patient is behind it.

`medicine` holds the numbers, `statements` and `effects` what each statement changes in a `heart`, `rhythm` when it
beats, `patients` and `anatomy` whose it is, `noise` what electrodes add, `record` one whole record, `archive` the
writing.
"""

"""`python -m convert`: the same as `jaxcryo convert`."""

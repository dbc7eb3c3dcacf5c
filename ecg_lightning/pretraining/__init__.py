"""A backbone of one's own: masked auto-encoding of ECGs without labels."""

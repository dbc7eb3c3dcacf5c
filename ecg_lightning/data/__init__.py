"""From PTB-XL's files to batches."""

"""What a reader sees of a run: figures from the files of a run folder and a store, never from a model."""

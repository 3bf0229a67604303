"""The fairseq tasks: flags, datasets, generators, sharding."""

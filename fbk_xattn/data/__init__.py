"""Audio, features, manifests, vocabularies, datasets and corpus readers."""

"""Results on disk: cells, their locks, manifests and records, and how they are read and scored again."""

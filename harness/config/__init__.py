"""Configurations: the catalog of choices, and objects built from YAML and manifests."""

"""The embedded reference model and the recipe that makes it."""

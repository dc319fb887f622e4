"""The embedded reference model, and how it is made."""

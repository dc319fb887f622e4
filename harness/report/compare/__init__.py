"""Our numbers beside published ones, and two of our results folders side by side."""

"""InfiniteBench: twelve tasks on texts of 100k tokens and more."""

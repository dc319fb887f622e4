"""SCBench: several questions on one context, each alone or one after the other."""

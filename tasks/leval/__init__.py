"""L-Eval: many questions on each long document."""

"""LongBench: its data, prompts, protocols, scores and the predictions of other programs."""

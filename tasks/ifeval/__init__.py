"""IFEval: instructions whose following a rule can verify, and which of them die first under compression."""

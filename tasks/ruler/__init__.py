"""RULER: its 13 tasks made anew or read from files, its scores, and the predictions of other programs."""

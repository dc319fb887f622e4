"""Other programs that evaluate through kvgauge: their requests, answered from compressed caches."""

"""LongBench v2: 503 multiple-choice questions on long texts."""

"""Results as readers see them: statistics, tables, plots, the page, comparisons, trackers."""

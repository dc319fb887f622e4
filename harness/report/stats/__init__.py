"""Records to numbers: means, intervals, what tables and plots show."""

"""Your own data: records of a file of JSON lines, asked and scored as the settings say."""

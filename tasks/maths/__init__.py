"""Mathematics by reasoning aloud: MATH-500, GSM8K and AIME 2024, with answers compared by math-verify."""

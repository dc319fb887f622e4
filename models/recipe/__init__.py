"""The recipe of ``models/tiny``: text, tokenizer, training sequences, training, evaluation, model card."""

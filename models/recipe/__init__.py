"""How ``models/tiny`` is made: text, tokenizer, training sequences, training, evaluation, model card."""

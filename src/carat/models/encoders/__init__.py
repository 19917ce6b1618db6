"""Pretrained encoders of tokens or sound in front of any model, fine-tuned jointly."""

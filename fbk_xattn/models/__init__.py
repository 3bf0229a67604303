"""Conformer encoders, CTC heads and the architectures made of them."""

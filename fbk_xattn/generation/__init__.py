"""Hypotheses and the cross-attention that goes with them."""

"""Compares a challenger with the champion and a simple baseline, and decides between them."""

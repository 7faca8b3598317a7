"""Measures a challenger beside the champion and a simple baseline, and decides between them."""

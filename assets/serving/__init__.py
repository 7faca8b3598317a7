"""Serving: the champion's answers to requests, and what is learned from them."""

"""Classification of texts: one label per row, with its probability."""

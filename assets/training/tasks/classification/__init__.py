"""Classification of texts: one label a row, with its probability."""

"""Fine-tuning: from a snapshot to a bundle, by DeepSpeed in processes of its own."""

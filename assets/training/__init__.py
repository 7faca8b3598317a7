"""Fine-tuning: from a snapshot to a bundle, with DeepSpeed in separate processes."""

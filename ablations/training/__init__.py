"""Top-1 accuracy of any classifier of images: data in memory, one recipe, training, evaluation."""

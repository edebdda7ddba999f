"""Top-1 accuracy of any classifier of pictures: data in memory, one recipe, training, evaluation."""

"""Networks for dense prediction around a backbone: detectors and a segmentation network."""

"""Feature extractors: images to vectors in which distances make sense, frozen and independent of the batch."""

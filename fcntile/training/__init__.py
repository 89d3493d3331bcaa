"""From rasters and labels to weights: windows, augmentation, losses, schedules, scores."""

"""Looking at data sets: numbers, histograms, samples."""

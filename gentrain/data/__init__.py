"""From a source's files to batches on the device; FFCV behind one door (`beton`)."""

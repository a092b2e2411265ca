"""Who offers images: the sources' own file formats, read into arrays, filtered and split."""

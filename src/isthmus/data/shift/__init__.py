"""Published test sets of shifted images, one file each, for classifiers that were trained elsewhere."""

"""The tests mirror the packages of src/isthmus."""

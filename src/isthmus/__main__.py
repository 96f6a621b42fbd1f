"""``python -m isthmus`` and ``torchrun -m isthmus``: the command line."""

from isthmus.cli.app import main

if __name__ == "__main__":
    main()

"""``python -m forgetbench`` is ``forgetbench``."""

from forgetbench.cli import main

if __name__ == "__main__":
    main()

"""The functions behind ``import forgetbench``, which the command line calls too."""

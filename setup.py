"""The package list is computed, so that no sub-package is forgotten; everything else stands in pyproject.toml."""

from setuptools import find_namespace_packages, setup

ROOTS = {
    "forgetbench": "benchmark",
    "forgetbench.datasets": "datasets",
    "forgetbench.methods": "methods",
    "forgetbench.leaderboard": "leaderboard",
}
DATA_ONLY = ("catalogue*", "reference*")

setup(
    packages=[
        *ROOTS,
        *(
            f"{name}.{child}"
            for name, folder in ROOTS.items()
            for child in find_namespace_packages(folder, exclude=(*DATA_ONLY, "*__pycache__*"))
        ),
    ]
)

"""What pyproject.toml cannot say: examples/ is installed as bilevel/examples, for `bilevel init --example`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["bilevel*", "physics*"]), "bilevel.examples"],
    package_dir={"bilevel.examples": "examples"},
)

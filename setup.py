"""Adds the files of a project to the wheel, for `sepablate init`; all else is in pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NAMES = runpy.run_path("sepablate/project_files.py")
FILES = [str(path) for path in NAMES["project_files"](Path())]


class BuildPy(build_py):
    """Copies them to sepablate/template/ in what is built; a repository has them at its root."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        for name, target in self._targets().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(name, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return what is built."""
        return [*super().get_outputs(include_bytecode), *self._targets().values()]

    def get_source_files(self) -> list[str]:
        """Return what a source distribution must hold."""
        return [*super().get_source_files(), *FILES]

    def _targets(self) -> dict[str, str]:
        if self.editable_mode:
            return {}
        folder = Path(self.build_lib, "sepablate", NAMES["IN_WHEEL"])
        return {name: str(folder / name) for name in FILES}


setup(cmdclass={"build_py": BuildPy})

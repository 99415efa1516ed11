"""The packages and the data that travel with them, found by a rule (names and versions: pyproject.toml).

The repository root itself is the package `sparsedict`, because ComfyUI loads the root as one. Setuptools' own
discovery knows no such layout, so the sub-packages are found here and put under that name.
"""

from setuptools import find_packages, setup

PARTS = ["sparsedict_core", "trainer", "demo_model", "evaluation", "demo", "lora", "pictures", "cli", "host_shared", "comfyui_host", "webui_host", "nodes", "benchmarks", "tools"]

found = find_packages(".", include=[pattern for part in PARTS for pattern in (part, f"{part}.*")])

setup(
    package_dir={"sparsedict": "."},
    packages=["sparsedict"] + [f"sparsedict.{name}" for name in found],
    package_data={
        "sparsedict": ["web/**/*", "locales/**/*", "requirements.txt"],
        "sparsedict.trainer": ["*.txt", "**/*.txt"],
        "sparsedict.demo_model": ["weights/*", "drawings/*", "*.md", "*.json", "*.txt"],
        "sparsedict.demo": ["**/*.png", "**/*.safetensors", "**/*.txt", "**/*.html", "**/*.css", "**/*.js", "**/*.j2"],
    },
)

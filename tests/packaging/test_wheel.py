import subprocess
import sys
import zipfile
from pathlib import Path


def test_the_wheel_claims_no_top_level_name_but_its_own(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        (source / name).write_bytes((root / name).read_bytes())
    for folder in ("causalprune", "cli"):
        for path in (root / folder).rglob("*"):
            if path.suffix in (".py", ".j2") or path.name == "py.typed":
                target = source / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.partition("/")[0] for n in names if ".dist-info" not in n} == {"causalprune", "causalprune_cli"}
    packaged = {n for n in names if n.endswith((".py", ".j2"))}
    for folder, package in (("causalprune", "causalprune"), ("cli", "causalprune_cli")):
        for path in [*(root / folder).rglob("*.py"), *(root / folder).rglob("*.j2")]:
            assert f"{package}/{path.relative_to(root / folder)}" in packaged

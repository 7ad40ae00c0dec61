import os
import subprocess
import sys


def test_import_encoders_writes_no_telemetry_files(tmp_path):
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    inherited = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    subprocess.run(
        [sys.executable, "-c", "import index.encoders"], env=inherited | home, check=True
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

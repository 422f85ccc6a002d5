import subprocess
import sys

import pytest

import analysis


def test_every_name_is_there():
    for name in analysis.__all__:
        assert callable(getattr(analysis, name)) or name == "MEASURES"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = analysis.nothing


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, analysis; print(sorted({'torch', 'umap', 'plotly', 'sklearn'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

"""What an import costs: no SDK until somebody needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_importing_the_module_imports_no_sdk() -> None:
    program = (
        "import sys, bot.settings, bot.aws.batch, bot.aws.s3, bot.aws.ses, bot.aws.secrets;"
        "import bot.aws.stack, bot.terminal.deploy;"
        "print([name for name in ('boto3', 'botocore') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_draws_with_a_library_that_only_a_terminal_imports() -> None:
    program = (
        "import sys, bot.__main__, bot.terminal.following, bot.terminal.submit, bot.terminal.admin;"
        "print([name for name in ('rich', 'pygments') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""``python -m tests.scenarios [INDEX]``: plays the table in that lab and writes docs/measured/scenarios.md."""

import sys
from datetime import date

from tests.scenarios.measure import play
from tests.scenarios.report import PATH, text

if __name__ == "__main__":
    PATH.write_text(text(play(int(sys.argv[1]) if len(sys.argv) > 1 else 81), date.today()))
    sys.stdout.write(f"{PATH}\n")

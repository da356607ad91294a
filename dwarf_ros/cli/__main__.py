"""`python -m dwarf_ros.cli` runs the `dwarf` command."""

import sys

from dwarf_ros.cli import main

sys.exit(main())

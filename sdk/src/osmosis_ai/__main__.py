import sys

from osmosis_ai.cli import main

sys.exit(main())

"""`python -m pmavae_cli` is `pmavae`."""

import sys

from pmavae_cli.main import main

sys.exit(main())

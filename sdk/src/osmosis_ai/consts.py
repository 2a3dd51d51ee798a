"""The distribution's name and version, stated once (the build reads the version from here)."""

package_name = "osmosis-ai"

# 0.2.17-compatible; the local label says that this is not the withdrawn 0.2.17 wheel.
PACKAGE_VERSION = "0.2.17+workspace"

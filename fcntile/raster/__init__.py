"""Rasters on disk: reading strips, writing masks. The only place that opens them."""

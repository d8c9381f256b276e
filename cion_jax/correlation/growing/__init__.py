"""Correlation of a crawl that grows: images are added to, and videos removed from, a finished correlation."""

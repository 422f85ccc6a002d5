"""Indexes of one's own videos: added incrementally, stored in LanceDB, searched exactly at any size."""
